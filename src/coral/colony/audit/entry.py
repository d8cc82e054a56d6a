"""What is to be written to the audit log; it becomes a record when it gets its number."""

from __future__ import annotations

from dataclasses import dataclass, replace

from coral.model.errors import CoralError
from coral.model.session import Session
from coral.trust.chain import Record, text

STARTED = "started"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A record without its number, its time and its hashes. Texts are cut and made printable.

    Attributes:
        principal: Who.
        role: What that principal may be.
        address: Where the call came from.
        action: What: the name of the RPC.
        service_name: On which service; empty, as the rest, where there is nothing to say.
        function_name: On which function.
        session_id: Which session.
        agent_id: Which agent.
        reason: Why, as the caller says; of QueryDatabase the statement, of RegisterAgent the address.
        decision: allow, deny, or error.
        outcome: ``ok``, the name of a status, or ``started`` while it is not known.
    """

    principal: str
    role: str
    address: str
    action: str
    service_name: str = ""
    function_name: str = ""
    session_id: str = ""
    agent_id: str = ""
    reason: str = ""
    decision: str = "allow"
    outcome: str = STARTED

    def about(self, session: Session) -> Entry:
        """The entry with the names of a session's service and function."""
        return replace(
            self,
            session_id=session.session_id,
            service_name=session.service_name,
            function_name=session.function_name,
        )

    def ended(self, error: CoralError | None = None, *, cancelled: bool = False) -> Entry:
        """The entry of how it ended; ``cancelled``: its caller went away."""
        if error is not None:
            return replace(self, decision="error", outcome=error.code)
        return replace(self, decision="allow", outcome="CANCELLED" if cancelled else "ok")

    def denied(self, error: CoralError) -> Entry:
        """The entry of a call that was not let in; where its caller gave no reason, what it was told."""
        return replace(self, decision="deny", outcome=error.code, reason=self.reason or text(error.message))

    def record(self, *, sequence: int, time: str, previous_hash: str) -> Record:
        """It as a record, with its hash."""
        record = Record(
            sequence=sequence,
            time=time,
            principal=self.principal,
            role=self.role,
            address=self.address,
            action=self.action,
            service_name=self.service_name,
            function_name=self.function_name,
            session_id=self.session_id,
            agent_id=self.agent_id,
            reason=self.reason,
            decision=self.decision,
            outcome=self.outcome,
            previous_hash=previous_hash,
        )
        return replace(record, hash=record.digest())
