"""What ``coral dev --auth`` does that people otherwise do: found a colony, keep its admin's token, have the agent join."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from coral.client.colony import ColonyClient
from coral.client.endpoint import Endpoint
from coral.model.errors import NotFound
from coral.trust.secret_files import private_folder, read_secret, write_secret
from coral.wire._generated.colony.v1 import enrolment_pb2

_TOKEN = "admin.token"
_CERTIFICATE_S = 90 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class DevCredentials:
    """Those of a colony of one's own.

    Attributes:
        ca_file: The certificate that it is known by.
        token_file: Its admin's token.
        token: That token.
    """

    ca_file: Path
    token_file: Path
    token: str = field(repr=False)

    def endpoint(self, colony: str) -> Endpoint:
        """The colony at HOST:PORT, as its admin reaches it."""
        return Endpoint(address=colony, ca_pem=self.ca_file.read_bytes(), token=self.token)

    async def invite(self, colony: str, agent_id: str) -> str:
        """An invitation for the agent; what it joined with in an earlier run ends."""
        async with ColonyClient(self.endpoint(colony)) as client:
            with suppress(NotFound):
                await client.revoke_agent(enrolment_pb2.RevokeAgentRequest(agent_id=agent_id, reason="coral dev --auth"))
            made = await client.invite(enrolment_pb2.CreateInviteRequest(agent_id=agent_id, reason="coral dev --auth"))
        return made.token


async def prepare(directory: Path, state_dir: Path) -> DevCredentials:
    """The credentials of the colony in ``state_dir``, which is founded if there is none.

    Args:
        directory: Where the admin's token is kept.
        state_dir: The colony's.

    Raises:
        NotFound: There is a colony, and not the token of its admin.
        FailedPrecondition: A file or folder is open to others.
    """
    # Here, as they load a database and what makes keys, which a plain `coral dev` has no use for.
    from coral.colony.founding import found
    from coral.trust.colony_keys import CA, is_initialised

    token_file = private_folder(directory) / _TOKEN
    if not is_initialised(state_dir):
        await found(
            state_dir,
            (),
            server_lifetime_s=_CERTIFICATE_S,
            hand_over=lambda token: write_secret(token_file, token.encode() + b"\n"),
        )
    return DevCredentials(ca_file=state_dir / CA, token_file=token_file, token=read_secret(token_file).decode().strip())
