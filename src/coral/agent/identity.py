"""What an agent that has joined a colony keeps: who both are, and what proves it. One file, replaced whole."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from coral.client.endpoint import Endpoint
from coral.model.errors import FailedPrecondition, InvalidArgument
from coral.trust.authority import COLONY_DNS, KeyPair, holder_of
from coral.trust.secret_files import read_secret, write_secret
from coral.wire.address import split_address

FILE = "identity.json"
_HINT = "Join again: `coral agent revoke` and `coral agent invite` at the colony, then `coral agent start --join TOKEN` here."


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """An agent's membership of a colony. Texts of keys and certificates are PEM; secrets do not show themselves.

    Attributes:
        agent_id: The agent, as its certificate names it.
        colony_id: The colony, as its certificate names it.
        invite_id: Of the invitation that it came by.
        agent_port: Where the colony serves its agents.
        ca: The colony's authority.
        command_key: The public key that the colony's commands are signed with.
        certificate: The agent's.
        key: Its private key.
    """

    agent_id: str
    colony_id: str
    invite_id: str
    agent_port: int
    ca: str = field(repr=False)
    command_key: str = field(repr=False)
    certificate: str = field(repr=False)
    key: str = field(repr=False)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The one kept in a state directory.

        Raises:
            NotFound: There is none.
            FailedPrecondition: It is open to others, or damaged.
        """
        path = folder / FILE
        content = read_secret(path)
        try:
            found = cls(**json.loads(content))
            holder = holder_of(found.certificate.encode())
        except (ValueError, TypeError, AttributeError, InvalidArgument):
            raise FailedPrecondition(f"{path} is damaged.", hint=_HINT) from None
        if (holder.kind, holder.id) != ("agent", found.agent_id):
            raise FailedPrecondition(f"{path} is damaged: its certificate is not this agent's.", hint=_HINT)
        return found

    def save(self, folder: Path) -> None:
        """Keeps it in a state directory.

        Raises:
            OSError: It cannot be written; what was there stays.
        """
        write_secret(folder / FILE, json.dumps(asdict(self), indent=1).encode() + b"\n")

    def pair(self) -> KeyPair:
        """The certificate and its key."""
        return KeyPair(certificate=self.certificate.encode(), key=self.key.encode())

    def colony_endpoint(self, colony: str) -> Endpoint:
        """The colony as this agent reaches it.

        Args:
            colony: HOST:PORT as configured, of which the host counts: agents have a port of their own.
        """
        host, _ = split_address(colony)
        shown = f"[{host}]" if ":" in host else host
        return Endpoint(
            address=f"{shown}:{self.agent_port}",
            ca_pem=self.ca.encode(),
            certificate=(self.certificate.encode(), self.key.encode()),
            server_name=COLONY_DNS,
        )
