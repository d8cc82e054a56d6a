"""The sessions that run: their state in memory, written through to the control file.

A session moves one way: pending, active, then one of the ended states. Only this module and the value classes that it holds
know which moves there are; who decides on one is the orchestrator (attach, detach) or the watch over a collector.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
import structlog

from coral.colony.deadline import Deadline
from coral.colony.feed import Feed
from coral.colony.progress import Progress
from coral.colony.saving import Saving
from coral.colony.store import control
from coral.colony.store.collectors import CollectorRow, put_collectors, put_instances
from coral.colony.store.database import Database
from coral.model.errors import NotFound
from coral.model.ledger import UnknownInterval
from coral.model.principal import Principal
from coral.model.session import Collector, Instance, InstanceStatus, ReasonCode, Session, Status

_log = structlog.get_logger(__name__)
_INSTANCES_EVERY_S = 2.0
_REASONS = {
    (Status.EXPIRED, ReasonCode.DEADLINE): "The time was up.",
    (Status.DETACHED, ReasonCode.USER): "It was detached on request.",
    (Status.DETACHED, ReasonCode.MAX_EVENTS): "It reported as many events as were asked for.",
    (Status.DETACHED, ReasonCode.OVER_BUDGET): "It cost more than its budget.",
    (Status.DETACHED, ReasonCode.LOCKDOWN): "Its host was locked down (coral agent lockdown).",
}


@dataclass(slots=True, kw_only=True)
class LiveCollector:
    """A collector of a session that runs.

    Attributes:
        agent_id: Which host.
        boot_id: Which life of its agent.
        progress: What the events file holds; replaced by each commit.
        status: Where it stands.
        reason: Why, as a sentence.
        reason_code: Why, as a word.
        instances: Its processes, as last reported.
        unknown: Times without counts.
        heard_boot_ns: When its agent said something last, by CLOCK_BOOTTIME; 0 when it has not in this life of the colony.
        received_ns: When the last snapshot came in, stored or not, as its session counts; 0 when none has.
        ended: Set when nothing will change it any more.
        unsaved: Whether ``instances`` is not written yet.
        saved_at: When they were written last, of the monotonic clock.
        nudge: Set to make its watch look anew: it has ended, or its agent came (back).
    """

    agent_id: str
    boot_id: str
    progress: Progress
    status: Status = Status.PENDING
    reason: str = ""
    reason_code: ReasonCode = ReasonCode.NONE
    instances: tuple[Instance, ...] = ()
    unknown: tuple[UnknownInterval, ...] = ()
    heard_boot_ns: int = 0
    received_ns: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    nudge: asyncio.Event = field(default_factory=asyncio.Event)
    unsaved: bool = False
    saved_at: float = -math.inf

    @property
    def collector_id(self) -> str:
        """Its ULID."""
        return self.progress.collector_id

    @property
    def unstored(self) -> bool:
        """Whether something of it came in that the database has not taken yet."""
        return self.received_ns not in (0, self.progress.snapshot_at_ns)

    def unknown_since(self, started_at_ns: int, *, to_ns: int, cause: str) -> tuple[UnknownInterval, ...]:
        """The one interval of an absence of its agent.

        Args:
            started_at_ns: Of the session: when no snapshot ever came.
            to_ns: When counting went on, or was to end; 0 while nobody knows.
            cause: A sentence.
        """
        from_ns = self.progress.snapshot_at_ns or started_at_ns
        return (UnknownInterval(from_ns=from_ns, to_ns=max(from_ns, to_ns) if to_ns else 0, cause=cause),)

    def view(self) -> Collector:
        """It, as it is now."""
        ledger = replace(self.progress.whole_ledger, unknown_intervals=self.unknown)
        return Collector(
            collector_id=self.collector_id,
            agent_id=self.agent_id,
            status=self.status,
            reason=self.reason,
            reason_code=self.reason_code,
            ledger=ledger,
            instances=self.instances,
        )

    def row(self) -> CollectorRow:
        """It as it is kept."""
        return CollectorRow(session_id=self.progress.session_id, boot_id=self.boot_id, collector=self.view())


@dataclass(slots=True, kw_only=True)
class Ending:
    """How a session is to end once its collectors have."""

    status: Status
    reason_code: ReasonCode
    reason: str


@dataclass(slots=True, kw_only=True)
class LiveSession:
    """A session that has not ended.

    Attributes:
        session: Its own values; without collectors.
        request: The serialized AttachUprobeRequest.
        feed: Its events on their way to followers.
        collectors: In the order in which they started.
        slowest: Its slowest events, longest first, as ``events.batch.rows`` gives them.
        newcomers: Hosts that may have come to see the service since it began, and are not part of it yet.
        joining: Those of them that are being attached now.
        asked: The hosts that it is being attached on at first, until all have answered.
        news: Set when there are newcomers.
        who: Who requested it; None after a restart of the colony.
        refused: The marks of functions that policies refused for it (``function_policies``).
        ending: Set when somebody asked for the end.
        deadline: When it is over, by a clock that nobody sets.
        ended: Set when it has ended and that is written.
    """

    session: Session
    request: bytes
    feed: Feed
    collectors: dict[str, LiveCollector] = field(default_factory=dict)
    slowest: list[dict[str, Any]] = field(default_factory=list)
    newcomers: set[str] = field(default_factory=set)
    joining: set[str] = field(default_factory=set)
    asked: frozenset[str] = frozenset()
    news: asyncio.Event = field(default_factory=asyncio.Event)
    who: Principal | None = None
    refused: set[bytes] = field(default_factory=set)
    ending: Ending | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    deadline: Deadline = field(init=False)
    _latest: dict[str, LiveCollector] = field(default_factory=dict, init=False, repr=False)
    _indexed: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self.deadline = Deadline.of(self.session)

    @property
    def session_id(self) -> str:
        """Its ULID."""
        return self.session.session_id

    def view(self) -> Session:
        """It, as it is now."""
        return replace(self.session, collectors=tuple(collector.view() for collector in self.collectors.values()))

    def current(self) -> list[LiveCollector]:
        """The last collector of each agent: earlier ones ended with an earlier life of it."""
        return list(self._index().values())

    def latest(self, agent_id: str) -> LiveCollector | None:
        """The last collector of an agent; None when there is none."""
        return self._index().get(agent_id)

    def holds(self, agent_id: str) -> bool:
        """Whether a host is among ``agent_ids``."""
        if agent_id in self.asked or agent_id in self.joining:
            return True
        latest = self.latest(agent_id)
        return latest is not None and _unconfirmed(latest)

    def _index(self) -> dict[str, LiveCollector]:
        if self._indexed != len(self.collectors):  # they only ever become more
            self._latest = {collector.agent_id: collector for collector in self.collectors.values()}
            self._indexed = len(self.collectors)
        return self._latest

    def agent_ids(self) -> set[str]:
        """The hosts on which it may have something attached."""
        return self.unconfirmed().union(self.asked, self.joining)

    def unconfirmed(self) -> set[str]:
        """The hosts that have not said that they have detached: also those that the colony no longer waits for."""
        return {agent_id for agent_id, one in self._index().items() if _unconfirmed(one)}

    def remaining_s(self) -> float:
        """Seconds until its deadline."""
        return self.deadline.remaining_s

    @property
    def now_ns(self) -> int:
        """Now, by the wall clock as it stood when the session began: so that it lasted as long as it did."""
        return self.session.started_at_ns + self.deadline.elapsed_ns


def _unconfirmed(collector: LiveCollector) -> bool:
    return collector.progress.status is None or not collector.ended.is_set()


class SessionBook:
    """All sessions that run, by id."""

    def __init__(self, control_db: Database) -> None:
        self._control = control_db
        self._saving = Saving(control_db)
        self._live: dict[str, LiveSession] = {}
        self._whose: dict[str, str] = {}
        self._added: list[Callable[[LiveSession], None]] = []
        self._listeners: list[Callable[[LiveSession], None]] = []

    def on_added(self, listener: Callable[[LiveSession], None]) -> None:
        """Calls ``listener`` with each session that begins to run."""
        self._added.append(listener)

    def on_left(self, listener: Callable[[LiveSession], None]) -> None:
        """Calls ``listener`` with each session that runs no more."""
        self._listeners.append(listener)

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[LiveSession]:
        return iter(list(self._live.values()))

    def get(self, session_id: str) -> LiveSession | None:
        """A session that runs; None when it has ended or never was."""
        return self._live.get(session_id)

    def add(self, live: LiveSession) -> None:
        """Takes a session in; writing it is the caller's part."""
        self._live[live.session_id] = live
        session = live.session
        _log.info(
            "session accepted" if session.status is Status.PENDING else "session resumed",
            session_id=session.session_id,
            service=session.service_name,
            function=session.function_name,
            requested_by=session.requested_by,
        )
        for listener in self._added:
            listener(live)

    def discard(self, live: LiveSession) -> None:
        """Forgets a session that was refused."""
        self._leave(live)

    def collector(self, collector_id: str) -> LiveCollector | None:
        """A collector that runs, whoever's it is."""
        known = self._live.get(self._whose.get(collector_id, ""))
        for live in self._live.values() if known is None else (known,):
            found = live.collectors.get(collector_id)
            if found is not None and not found.ended.is_set():
                self._whose[collector_id] = live.session_id  # heartbeats ask for the same again and again
                return found
        return None

    async def view(self, session_id: str) -> Session:
        """A session, running or ended.

        Raises:
            NotFound: There is none, or retention has removed it.
        """
        live = self._live.get(session_id)
        if live is not None:
            return live.view()
        found = await self._control.read(lambda cursor: control.find_sessions(cursor, session_id=session_id, limit=1))
        if not found:
            raise NotFound(f"There is no session {session_id!r}.", hint="`coral debug session list` has all that are kept.")
        return found[0]

    async def find(self, *, service_name: str, status: str, session_id: str, before: str, limit: int) -> list[Session]:
        """Sessions that match, newest first; see ``control.find_sessions``."""
        live = self._live.get(session_id)
        if live is not None:
            matches = service_name in ("", live.session.service_name) and status in ("", live.session.status)
            return [live.view()] if matches and (not before or session_id < before) else []
        found = await self._control.read(
            lambda cursor: control.find_sessions(
                cursor, service_name=service_name, status=status, session_id=session_id, before=before, limit=limit
            )
        )
        return [live.view() if (live := self._live.get(session.session_id)) else session for session in found]

    def report(
        self, live: LiveSession, collector: LiveCollector, instances: tuple[Instance, ...], *, active: bool = False
    ) -> None:
        """Notes what an agent says of the processes; a session whose first one is attached becomes active."""
        if instances != collector.instances:
            collector.instances = instances
            collector.unsaved = True
        # A service that forks for each request changes all the time: its list is written now and then, and at the end.
        if collector.unsaved and time.monotonic() - collector.saved_at >= _INSTANCES_EVERY_S:
            self.save_instances(collector)
        attached = active or any(instance.status is InstanceStatus.ATTACHED for instance in instances)
        if attached and collector.status is Status.PENDING:
            collector.status = Status.ACTIVE
            self.save_collector(collector)
        if attached and live.session.status is Status.PENDING:
            live.session = replace(live.session, status=Status.ACTIVE, reason="")
            _log.info("session active", session_id=live.session_id, agent_id=collector.agent_id)
            session = live.view()
            self._control.post(lambda connection: control.update_session(connection, session), what="session")

    def save_instances(self, collector: LiveCollector) -> None:
        """Queues the rows of a collector's instances for writing."""
        collector.unsaved, collector.saved_at = False, time.monotonic()
        self._saving.instances(collector.collector_id, collector.instances)

    def add_collector(self, live: LiveSession, collector: LiveCollector) -> None:
        """Takes a further collector into a session, and queues its rows for writing."""
        live.collectors[collector.collector_id] = collector
        _log.debug(
            "collector started",
            session_id=live.session_id,
            collector_id=collector.collector_id,
            agent_id=collector.agent_id,
        )
        if any(other.agent_id != collector.agent_id for other in live.collectors.values()):
            live.session = replace(live.session, agent_id="")
        self.save_collector(collector)
        session = live.view()
        self._control.post(lambda connection: control.update_session(connection, session), what="session")
        self.save_instances(collector)

    def save_collector(self, collector: LiveCollector) -> None:
        """Queues the row of a collector for writing."""
        self._saving.collector(collector.row())

    def end_collector(self, collector: LiveCollector, status: Status, reason_code: ReasonCode, reason: str = "") -> None:
        """Moves a collector to its end; a second time changes nothing."""
        if collector.ended.is_set():
            return
        collector.status = status
        collector.reason_code = reason_code
        collector.reason = reason or _REASONS.get((status, reason_code), "")
        log = _log.warning if status in (Status.FAILED, Status.LOST) else _log.debug
        log(
            "collector ended",
            session_id=collector.progress.session_id,
            collector_id=collector.collector_id,
            agent_id=collector.agent_id,
            status=status.value,
            reason_code=reason_code.value,
            reason=collector.reason,
        )
        self.save_collector(collector)
        if collector.unsaved:
            self.save_instances(collector)
        collector.ended.set()
        collector.nudge.set()

    async def end(self, live: LiveSession) -> None:
        """Moves a session, whose collectors have all ended, to its end, and writes that."""
        if self._live.get(live.session_id) is not live:
            return
        if not live.session.status.ended:  # else this is a further attempt to write it
            ending = live.ending or conclude(live.current())
            live.session = replace(
                live.session,
                status=ending.status,
                reason_code=ending.reason_code,
                reason=f"{ending.reason} {live.session.reason}".strip(),
                ended_at_ns=live.now_ns // 1000 * 1000,
            )
        session = live.view()
        collectors = [collector.row() for collector in live.collectors.values()]
        instances = {one.progress.collector_id: one.instances for one in live.collectors.values()}

        def write(connection: duckdb.DuckDBPyConnection) -> None:
            # The collectors and their processes too, since a queued write of them is lost when the database fails.
            put_collectors(connection, collectors)
            put_instances(connection, instances)
            control.update_session(connection, session)

        await self._control.write(write)
        self._leave(live)

    def _leave(self, live: LiveSession) -> None:
        self._live.pop(live.session_id, None)
        for collector_id in live.collectors:
            self._whose.pop(collector_id, None)
        live.ended.set()
        live.feed.close()
        for listener in self._listeners:
            listener(live)


def conclude(collectors: Iterable[LiveCollector]) -> Ending:
    """How a session ends whose collectors ended by themselves: as the most regular of them.

    One that reached the deadline makes the session ``expired``, though another agent was lost on the way; the collectors
    keep what happened to each.
    """
    order = (Status.EXPIRED, Status.DETACHED, Status.LOST, Status.FAILED)
    ended = sorted(collectors, key=lambda collector: order.index(collector.status))
    first = ended[0]
    reason = first.reason
    others = [collector for collector in ended if collector.status is not first.status]
    if others:
        reason = f"{reason} On {', '.join(f'{other.agent_id}: {other.reason or other.status}' for other in others)}".strip()
    return Ending(status=first.status, reason_code=first.reason_code, reason=reason)
