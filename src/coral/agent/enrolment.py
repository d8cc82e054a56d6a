"""Joining a colony, and staying a member: the certificate is renewed in good time, without anybody and without a break."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog

from coral.agent.identity import Identity
from coral.client.colony import ColonyClient
from coral.client.endpoint import Endpoint
from coral.model.errors import CoralError, DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from coral.trust.authority import COLONY_DNS, KeyPair, check_pair, holder_of, new_key, private_pem, request_for
from coral.trust.colony_keys import renewal_due_in_s
from coral.trust.commands import Target, Verifier
from coral.trust.invitation import Invitation, parse_invitation
from coral.trust.secret_files import private_folder
from coral.wire._generated.colony.v1 import enrolment_pb2

_JOIN_S = 30.0
_CALL_S = 10.0
_FIRST_RETRY_S = 0.5
_LAST_RETRY_S = 300.0
_LOOK_S = 3600.0
_LEAST_S = 0.2
_MAX_INVITATION = 8192

_log = structlog.get_logger(__name__)


async def enrolled(*, folder: Path, agent_id: str, colony: str, join: str) -> Identity:
    """The membership that a state directory has, or that an invitation brings.

    An invitation by which the agent has joined already is passed over, so that it may stay in a unit file.

    Args:
        folder: The state directory.
        agent_id: What the agent calls itself.
        colony: HOST:PORT of the colony, where everybody reaches it.
        join: What ``--join`` says: an invitation, ``@FILE``, ``-``; empty for none.

    Raises:
        FailedPrecondition: There is neither, the agent has another name than it joined with, or it may not join.
        Unauthenticated: The invitation is not good.
        Unavailable: The colony cannot be reached.
        InvalidArgument: That is no invitation.
    """
    private_folder(folder)
    invitation = parse_invitation(await asyncio.to_thread(_given, join)) if join else None
    try:
        found: Identity | None = Identity.load(folder)
    except NotFound:
        found = None
    if found is not None and (invitation is None or invitation.token.token_id == found.invite_id):
        if found.agent_id != agent_id:
            raise FailedPrecondition(
                f"This agent joined its colony as {found.agent_id!r} and is now called {agent_id!r}.",
                hint="Give it its name back (agent_id), or have it join under the new one with `--join TOKEN`.",
            )
        return found
    if invitation is None:
        raise FailedPrecondition(
            "This agent has not joined a colony.",
            hint="Run `coral agent invite` there and start this with --join TOKEN; or, to try things out on this host alone, "
            "with --insecure.",
        )
    identity = await _join(invitation, agent_id=agent_id, colony=colony)
    await asyncio.to_thread(identity.save, folder)
    _log.info("joined", colony=colony, agent_id=agent_id)
    return identity


async def _join(invitation: Invitation, *, agent_id: str, colony: str) -> Identity:
    key = new_key()
    request = enrolment_pb2.JoinAgentRequest(agent_id=agent_id, certificate_request=request_for(key, agent_id))
    endpoint = Endpoint(address=colony, ca_pem=invitation.ca_pem, token=invitation.token.text, server_name=COLONY_DNS)
    loop = asyncio.get_running_loop()
    deadline, pause_s = loop.time() + _JOIN_S, _FIRST_RETRY_S
    async with ColonyClient(endpoint) as client:
        while True:
            try:
                response = await client.join(request, timeout_s=_CALL_S)
                break
            except (Unavailable, DeadlineExceeded) as error:
                if loop.time() + pause_s >= deadline:
                    raise
                _log.warning("the colony is away", colony=colony, reason=str(error), retry_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s *= 2
    identity = Identity(
        agent_id=agent_id,
        colony_id=response.colony_id,
        invite_id=invitation.token.token_id,
        agent_port=response.agent_port,
        ca=invitation.ca_pem.decode(),
        command_key=_text(response.command_key),
        certificate=_text(response.certificate),
        key=private_pem(key).decode(),
    )
    _check(identity)
    return identity


class Membership:
    """An identity that is renewed.

    Attributes:
        identity: As it is now. Read from any thread.
    """

    def __init__(self, identity: Identity, folder: Path) -> None:
        """Args: ``identity`` as loaded; ``folder`` the state directory that keeps it."""
        self.identity = identity
        self._folder = folder
        self._pair = identity.pair()

    def pair(self) -> KeyPair:
        """What the agent's port shows now; the same object while nothing changed."""
        return self._pair

    async def run(self, endpoint: Callable[[], Endpoint]) -> None:
        """Renews the certificate whenever that is due, until cancelled. Nothing that runs notices.

        Args:
            endpoint: The colony, as this agent reaches it now.
        """
        pause_s = _FIRST_RETRY_S
        while True:
            due_in_s = renewal_due_in_s(self.identity.certificate.encode())
            if due_in_s > 0:
                await asyncio.sleep(min(_LOOK_S, max(_LEAST_S, due_in_s)))  # clocks are set, hosts sleep: looked at anew
                continue
            try:
                await self._renew(endpoint())
                pause_s = _FIRST_RETRY_S
            except (CoralError, OSError) as error:
                _log.warning("the certificate is not renewed yet", reason=str(error), retry_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(_LAST_RETRY_S, 2 * pause_s)

    async def _renew(self, endpoint: Endpoint) -> None:
        key = new_key()
        agent_id = self.identity.agent_id
        request = enrolment_pb2.RenewAgentRequest(agent_id=agent_id, certificate_request=request_for(key, agent_id))
        async with ColonyClient(endpoint) as client:
            response = await client.renew(request, timeout_s=_CALL_S)
        renewed = replace(
            self.identity,
            certificate=_text(response.certificate),
            key=private_pem(key).decode(),
            agent_port=response.agent_port or self.identity.agent_port,
        )
        _check(renewed)
        await asyncio.to_thread(renewed.save, self._folder)
        self.identity, self._pair = renewed, renewed.pair()
        _log.info("certificate renewed", agent_id=agent_id)


def _text(pem: bytes) -> str:
    """What came as PEM; what is none is found out by who reads it."""
    return pem.decode("ascii", "replace")


def _check(identity: Identity) -> None:
    """Returns when what came is of use to this agent, before it takes the place of what is.

    Raises:
        FailedPrecondition: It is not: another's certificate, for another key, of another authority, no key for commands.
    """
    try:
        holder = holder_of(identity.certificate.encode())
        check_pair(identity.pair(), identity.ca.encode())
    except InvalidArgument as error:
        raise FailedPrecondition(f"The colony answered with no certificate for this agent: {error.message}") from None
    if (holder.kind, holder.id) != ("agent", identity.agent_id):
        raise FailedPrecondition(
            f"The colony answered with a certificate for {holder.kind} {holder.id!r}.", hint="Is it the right colony?"
        )
    Verifier(identity.command_key.encode(), Target(agent_id=identity.agent_id, boot_id=""))


def _given(join: str) -> str:
    """The invitation that ``--join`` means.

    Raises:
        InvalidArgument: The file cannot be read.
    """
    if join == "-":
        return sys.stdin.readline(_MAX_INVITATION)
    if not join.startswith("@"):
        return join
    path = Path(join[1:])
    try:
        with path.open(encoding="ascii") as file:
            return file.read(_MAX_INVITATION)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InvalidArgument(f"{path} cannot be read: {why}.", hint="Give --join @FILE with an invitation in it.") from None
