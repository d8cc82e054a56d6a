"""How attaches and collectors come out, in words."""

from __future__ import annotations

from collections.abc import Sequence

from coral.agent.collector import Collector
from coral.model.errors import AmbiguousName, CoralError, FailedPrecondition, NotFound, PermissionDenied, ResourceExhausted
from coral.model.session import ReasonCode

_NAMED = 8
"""How many holders of a place a refusal names."""

SENTENCES = {
    ReasonCode.DEADLINE: "its time was up",
    ReasonCode.USER: "it was stopped",
    ReasonCode.MAX_EVENTS: "max_events was reached",
    ReasonCode.OVER_BUDGET: "all sessions of this host together reported more events than it allows, and it the most",
    ReasonCode.LOCKDOWN: "the host was locked down (coral agent lockdown)",
}
"""Why a collector ended."""


def exit_status(status: int) -> int:
    """The exit code, or minus the signal, of a status as wait(2) gives it."""
    return -(status & 0x7F) if status & 0x7F else status >> 8 & 0xFF


def full(agent_id: str, limit: int, running: Sequence[Collector]) -> ResourceExhausted:
    """What to say when no more collectors may run: who has them."""
    soonest = sorted(running, key=lambda collector: collector.remaining_s)
    named = "; ".join(
        f"{one.session_id or one.collector_id} by {one.actor or 'somebody'} ({one.spec.function_name}, "
        f"ends within {max(0.0, one.remaining_s):.0f} s)"
        for one in soonest[:_NAMED]
    )
    more = f"; and {len(soonest) - _NAMED} more" if len(soonest) > _NAMED else ""
    return ResourceExhausted(
        f"Agent {agent_id} runs {limit} probes, which is its limit: {named or 'others begin now'}{more}.",
        hint="Try again when one has ended, or stop one with `coral debug session stop ID`.",
        details={"limit": "max_collectors", "allowed": str(limit)},
    )


def most_telling(errors: Sequence[CoralError]) -> CoralError:
    """The error to answer with when no instance could be attached: what a user can act on comes first."""
    for kind in (PermissionDenied, AmbiguousName, FailedPrecondition, NotFound):
        for error in errors:
            if isinstance(error, kind):
                return error
    return errors[0] if errors else NotFound("No instance of the service could be attached.", hint="Try again.")
