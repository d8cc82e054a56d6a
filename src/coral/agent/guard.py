"""The agent's door: its own colony comes in, nobody else, and each of its commands counts once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext

import structlog
from google.protobuf.message import Message

from coral.agent.identity import Identity
from coral.agent.refusals import Refusals
from coral.model.errors import CoralError, InvalidArgument, PermissionDenied, Unauthenticated
from coral.model.principal import Kind, Principal
from coral.trust.authority import holder_of
from coral.trust.commands import Target, Verifier
from coral.wire.guard import Call
from coral.wire.metadata import COMMAND_KEY

_ONLY = "An agent takes commands from the colony that it joined, and from nobody else."

_log = structlog.get_logger(__name__)


class AgentGuard:
    """Guards an agent that has joined a colony. What it refuses is logged, and reported to the colony.

    Args:
        identity: Which colony that is.
        boot_id: Of this life of the agent: commands to earlier ones do not count.
        refusals: Where refusals wait for the next report.
        clock_ns: The wall clock.
    """

    def __init__(
        self, identity: Identity, *, boot_id: str, refusals: Refusals, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        target = Target(agent_id=identity.agent_id, boot_id=boot_id)
        self._colony_id = identity.colony_id
        self._verifier = Verifier(identity.command_key.encode(), target, clock_ns=clock_ns)
        self._refusals = refusals
        self._clock_ns = clock_ns

    def check_methods(self, methods: Sequence[str]) -> None:
        """Every method has the same rule: it takes a command of the colony."""

    async def authenticate(self, call: Call) -> Principal:
        """The colony, by its certificate, which TLS has verified against the authority that the agent joined.

        Raises:
            Unauthenticated: It is somebody else: no certificate, another agent's, an expired one.
        """
        try:
            return self._colony(call)
        except CoralError as error:
            raise self._noted(call, "unauthenticated", error) from None

    def serving(self, principal: Principal, call: Call) -> AbstractAsyncContextManager[None]:
        """Without bound: the collectors have their own."""
        return nullcontext()

    async def authorise(self, principal: Principal, call: Call, request: Message, raw: bytes) -> None:
        """Whether the request is one that the colony has signed for this agent, now and once.

        Raises:
            PermissionDenied: It is not.
            Unavailable: It was signed for an earlier life of this agent.
            ResourceExhausted: Too many came.
        """
        envelopes = call.values(COMMAND_KEY)
        try:
            if len(envelopes) != 1 or not isinstance(envelopes[0], bytes):
                raise PermissionDenied(f"{call.method} came without the colony's signature.", hint=_ONLY)
            self._verifier.accept(envelopes[0], call.method, raw)
        except CoralError as error:
            raise self._noted(call, principal.name, error) from None

    async def recheck(self, principal: Principal, call: Call) -> None:
        """Whether the colony's certificate is still good.

        Raises:
            Unauthenticated: It has expired: the colony has a new one, and connects anew.
        """
        self._colony(call)

    def _colony(self, call: Call) -> Principal:
        if not call.secure or call.certificate is None:
            raise Unauthenticated("No certificate was shown.", hint=_ONLY)
        try:
            holder = holder_of(call.certificate)
        except (InvalidArgument, UnicodeDecodeError):
            raise Unauthenticated("The certificate that was shown names nobody.", hint=_ONLY) from None
        if (holder.kind, holder.id) != ("colony", self._colony_id):
            raise Unauthenticated(f"This is {holder.kind} {holder.id!r}, not the colony of this agent.", hint=_ONLY)
        if holder.expires_at_ns <= self._clock_ns():  # TLS looks at that only when a connection begins
            raise Unauthenticated("The colony's certificate has expired.", hint="It renews it by itself; is its clock right?")
        return Principal(
            name=f"colony:{holder.id}",
            kind=Kind.COLONY,
            address=call.address,
            credential_id=holder.serial,
            expires_at_ns=holder.expires_at_ns,
        )

    def _noted(self, call: Call, principal: str, error: CoralError) -> CoralError:
        refusal = self._refusals.note(method=call.method, principal=principal, address=call.address, error=error)
        if refusal.count & (refusal.count - 1) == 0:  # 1, 2, 4, 8: whoever floods does not fill the log
            _log.warning(
                "refused",
                method=refusal.method,
                principal=refusal.principal,
                address=call.address,
                code=error.code,
                reason=error.message,
                times=refusal.count,
            )
        return error
