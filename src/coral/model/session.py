"""Sessions, their collectors, and the instances in them. The words are those of docs/glossary.md."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from coral.model.ledger import Ledger
from coral.model.site import Site


class Status(enum.StrEnum):
    """Where a session or a collector stands."""

    PENDING = "pending"
    ACTIVE = "active"
    EXPIRED = "expired"
    DETACHED = "detached"
    FAILED = "failed"
    LOST = "lost"

    @property
    def ended(self) -> bool:
        """Whether nothing will change it any more."""
        return self not in (Status.PENDING, Status.ACTIVE)


class ReasonCode(enum.StrEnum):
    """Why it stands there."""

    NONE = ""
    DEADLINE = "deadline"
    USER = "user"
    MAX_EVENTS = "max_events"
    OVER_BUDGET = "over_budget"
    NO_INSTANCE = "no_instance"
    NO_FUNCTION = "no_function"
    UNSAFE_RETURN = "unsafe_return"
    AGENT_GONE = "agent_gone"
    LIMIT = "limit"
    LOCKDOWN = "lockdown"


class InstanceStatus(enum.StrEnum):
    """Where one process of a collector stands."""

    ATTACHED = "attached"
    DETACHED = "detached"
    EXITED = "exited"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One process in a collector.

    Attributes:
        pid: In the host's pid namespace.
        start_time_ns: Since boot, with the resolution of /proc/PID/stat (10 ms); with ``pid`` it names the process for good.
        executable: Path of its program, as the process sees it.
        build_id: Of the image that carries the probe, hex; empty when it has none.
        image_id: Identity of that image.
        function_name: The symbol found there.
        status: Where it stands.
        reason: Why, as a sentence; may be empty.
        method: How its returns are seen; empty unless attached.
        sites: Where it is probed.
        exit_status: Its exit code, or minus the signal that ended it; None when unknown.
    """

    pid: int
    start_time_ns: int
    executable: str
    build_id: str = ""
    image_id: str = ""
    function_name: str = ""
    status: InstanceStatus = InstanceStatus.ATTACHED
    reason: str = ""
    method: str = ""
    sites: tuple[Site, ...] = ()
    exit_status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """A session on one host, for one life of the agent.

    Attributes:
        collector_id: A ULID.
        agent_id: Which host.
        status: Where it stands.
        reason: Why, as a sentence.
        reason_code: Why, as a word.
        ledger: Its counters.
        instances: Its processes.
    """

    collector_id: str
    agent_id: str
    status: Status
    reason: str = ""
    reason_code: ReasonCode = ReasonCode.NONE
    ledger: Ledger = Ledger()
    instances: tuple[Instance, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One function of one service for a time, on every host that runs it. Times are wall clock, ns since the epoch.

    Attributes:
        session_id: A ULID.
        service_name: Whose function.
        function_name: As it was asked for.
        agent_id: The one agent it was narrowed to or runs on; empty when it spans several.
        started_at_ns: When it was accepted.
        expires_at_ns: When it ends at the latest.
        status: Where it stands.
        requested_by: Who asked.
        reason: Why it stands there, as a sentence.
        reason_code: Likewise, as a word.
        ended_at_ns: When it ended; 0 while it lasts.
        events_removed_at_ns: When its events went, while it was kept; 0 while they are there.
        events_removed_why: Why they did: ``size``, ``free_space`` or ``damage``.
        collectors: One per host and life of its agent.
    """

    session_id: str
    service_name: str
    function_name: str
    agent_id: str
    started_at_ns: int
    expires_at_ns: int
    status: Status
    requested_by: str
    reason: str = ""
    reason_code: ReasonCode = ReasonCode.NONE
    ended_at_ns: int = 0
    events_removed_at_ns: int = 0
    events_removed_why: str = ""
    collectors: tuple[Collector, ...] = ()

    @property
    def ledger(self) -> Ledger:
        """The sum of its collectors'; final once it has ended and every collector's is."""
        total = Ledger(final=self.status.ended)
        for collector in self.collectors:
            total += collector.ledger
        return total
