"""One collector: what it was asked for, what it has attached, what it has seen. Belongs to the event loop's thread."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from coral.agent.clock import boot_ns
from coral.agent.window import Window
from coral.elf.image import ImageKey
from coral.events.batch import Origin
from coral.events.record import Array, number
from coral.kernel.cookie import MAX_SITES
from coral.kernel.engine import Attachment, Engine
from coral.model.errors import ResourceExhausted
from coral.model.ledger import Ledger
from coral.model.probe import ProbeSpec
from coral.model.session import Instance, InstanceStatus, ReasonCode, Status
from coral.model.site import FunctionPlan, Site
from coral.procfs.process import ProcessId

_MAX_PAST = 1000
"""Ended processes that are kept in the list of instances; a service that forks per request would fill it for ever."""


@dataclass(slots=True, kw_only=True)
class Group:
    """One image of a collector: its plan, its identity, and the links that carry it.

    Attributes:
        key: Identity of the file on disk.
        plan: What is attached.
        build_id: Of the image, hex.
        image_id: Of the image.
        number: Of the image among the collector's, which its sites and its processes carry in the kernel.
        first_site: Index of the plan's first site among the collector's.
        by_process: Whether each process has a link of its own, because others map the image too.
        fd: The image, open for as long as the collector lives.
        attachments: The links; by pid when ``by_process``, else under 0.
    """

    key: ImageKey
    plan: FunctionPlan
    build_id: str
    image_id: str
    number: int
    first_site: int
    by_process: bool
    fd: int
    attachments: dict[int, Attachment] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Tracked:
    """One process of a collector, from one exec to the next: the value that others see, and what the agent needs beside it.

    Attributes:
        id: Which process.
        instance: What others see.
        since_boot_ns: When it became a member; what the kernel reports from before that is not about it.
        group: The image that carries its probes; None when it is not attached.
        number: That names it in the kernel's tables.
    """

    id: ProcessId
    instance: Instance
    since_boot_ns: int = 0
    group: Group | None = None
    number: int = 0


@dataclass(slots=True, eq=False)
class Reader:
    """Who reads the events of a collector.

    Attributes:
        taken: Up to which sequence it has them.
    """

    taken: int


class Collector:
    """A session on this host, for this life of the agent.

    Args:
        collector_id: Its id.
        session_id: Of the session it belongs to; may be empty when it was started on the agent directly.
        of_colony: Whether a colony started it, which then also ends it; one that was started on the agent directly is told
            to no colony.
        agent_id: This host.
        spec: What was asked for.
        engine: The kernel layer.
        slot: Its slot there.
        accepted_boot_ns: When it was accepted.
        accepted_wall_ns: Likewise, by the wall clock.
        actor: Who asked for it.
        authorised: The marks of the functions that it may probe; None for any that its name comes to.
        max_sites: In how many places it may probe.
    """

    def __init__(
        self,
        *,
        collector_id: str,
        session_id: str,
        of_colony: bool,
        agent_id: str,
        spec: ProbeSpec,
        engine: Engine,
        slot: int,
        accepted_boot_ns: int,
        accepted_wall_ns: int,
        actor: str = "",
        authorised: frozenset[bytes] | None = None,
        max_sites: int = MAX_SITES,
    ) -> None:
        self.collector_id = collector_id
        self.session_id = session_id
        self.of_colony = of_colony
        self.agent_id = agent_id
        self.spec = spec
        self.actor = actor
        self.authorised = authorised
        self.unauthorised: set[ProcessId] = set()
        self._max_sites = min(max_sites, MAX_SITES)
        self.slot = slot
        self.expires_boot_ns = accepted_boot_ns + spec.duration_ns
        self.expires_at_ns = accepted_wall_ns + spec.duration_ns
        self.window = Window()
        self.groups: dict[ImageKey, Group] = {}
        self.sites: list[Site] = []
        self.tracked: dict[ProcessId, Tracked] = {}
        self._past: deque[Instance] = deque(maxlen=_MAX_PAST)
        self.status = Status.PENDING
        self.reason = ""
        self.reason_code = ReasonCode.NONE
        self.ended_boot_ns = 0
        self.revision = 0
        self.open_now = 0
        self.stop_requested = asyncio.Event()
        self.stop_code = ReasonCode.NONE
        self.ending = asyncio.Event()
        """Set when it begins to detach: from then on nothing is attached any more, and nobody reads a program for it."""
        self.ended = asyncio.Event()
        self.changing = asyncio.Lock()
        self._engine = engine
        self._swept = 0
        self._final: Ledger | None = None
        self._listeners: set[asyncio.Event] = set()
        self._readers: set[Reader] = set()

    @property
    def function_name(self) -> str:
        """The symbol that events carry: the one that was found, or else what was asked for."""
        for group in self.groups.values():
            return group.plan.name
        return self.spec.function_name

    @property
    def instances(self) -> tuple[Instance, ...]:
        """Its processes: those that ended, then the rest in the order in which they joined."""
        return (*self._past, *(tracked.instance for tracked in self.tracked.values()))

    @property
    def origin(self) -> Origin:
        """What all its events have in common."""
        return Origin(
            collector_id=self.collector_id,
            agent_id=self.agent_id,
            service_name=self.spec.service_name,
            function_name=self.function_name,
            sites=self.sites,
        )

    @property
    def ledger(self) -> Ledger:
        """Its counters now; final once it has ended."""
        if self._final is not None:
            return self._final
        return self._ledger(open_calls=self.open_now, final=False)

    @property
    def remaining_s(self) -> float:
        """Until its deadline, by CLOCK_BOOTTIME."""
        return (self.expires_boot_ns - boot_ns()) / 1e9

    def receive(self, records: Array, offset_ns: int) -> None:
        """Takes records of its slot, numbers them, and keeps them.

        Args:
            records: Of dtype ``RECORD``, in the order of the ring.
            offset_ns: From CLOCK_BOOTTIME to wall clock.
        """
        self.window.append(number(records, first_sequence=self.window.last_sequence + 1, boot_to_wall_ns=offset_ns))
        limit = self.spec.config.max_events
        if limit and self.window.last_sequence >= limit:
            self.request_stop(ReasonCode.MAX_EVENTS)
        self.notify()

    @contextmanager
    def read_from(self, sequence: int) -> Iterator[Reader]:
        """A reader that has the events up to ``sequence``, while the context lasts."""
        reader = Reader(sequence)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)

    @property
    def waiting(self) -> int | None:
        """How many events its fastest reader has not taken yet; None when nobody reads."""
        if not self._readers:
            return None
        return self.window.last_sequence - max(reader.taken for reader in self._readers)

    def request_stop(self, code: ReasonCode) -> None:
        """Asks for its end before the deadline; the first reason counts."""
        if not self.stop_requested.is_set():
            self.stop_code = code
            self.stop_requested.set()

    def new_group(
        self, *, key: ImageKey, plan: FunctionPlan, build_id: str, image_id: str, by_process: bool, fd: int
    ) -> Group:
        """Makes room for an image among the collector's sites.

        Raises:
            ResourceExhausted: They would be more than a session may have.
        """
        sites = len(self.sites) + len(plan.sites)
        if sites > self._max_sites:
            raise ResourceExhausted(
                f"{plan.name} would be probed in {sites:,} places; one session may have {self._max_sites:,} on this host.",
                hint="Name one function of those that are meant, or raise max_sites in the agent's settings.",
                details={"limit": "max_sites", "allowed": str(self._max_sites)},
            )
        group = Group(
            key=key,
            plan=plan,
            build_id=build_id,
            image_id=image_id,
            number=len(self.groups),
            first_site=len(self.sites),
            by_process=by_process,
            fd=fd,
        )
        self.sites.extend(plan.sites)
        self.groups[key] = group
        return group

    def track(self, tracked: Tracked) -> None:
        """Adds a process, or replaces what was known of it."""
        self.tracked[tracked.id] = tracked
        self.touch()

    def update(self, tracked: Tracked, **changes: object) -> None:
        """Changes fields of the value that others see of a process."""
        tracked.instance = replace(tracked.instance, **changes)  # type: ignore[arg-type]
        self.touch()

    def of_pid(self, pid: int) -> Tracked | None:
        """The process of that pid that is attached now."""
        for tracked in self.tracked.values():
            if tracked.id.pid == pid and tracked.instance.status is InstanceStatus.ATTACHED:
                return tracked
        return None

    def authorise(self, marks: frozenset[bytes]) -> bool:
        """Lets it probe more functions; the processes that it left alone for want of that are forgotten, to be tried again.

        Returns:
            Whether it may probe more than before.
        """
        if self.authorised is None or marks <= self.authorised:
            return False
        self.authorised |= marks
        waiting, self.unauthorised = self.unauthorised, set()
        for id in waiting:
            self.forget_refused(id)
        return True

    def retire(self, tracked: Tracked, *, status: InstanceStatus, reason: str = "", exit_status: int | None = None) -> None:
        """Moves a process that ended, or runs another program now, to the past."""
        del self.tracked[tracked.id]
        if tracked.group is not None:
            self._past.append(
                replace(tracked.instance, status=status, exit_status=exit_status, reason=reason or tracked.instance.reason)
            )
        self.touch()

    def forget_refused(self, id: ProcessId) -> None:
        """Drops a process that never was attached, once it has ended: services start many short-lived helpers."""
        tracked = self.tracked.get(id)
        if tracked is not None and tracked.group is None:
            self.unauthorised.discard(id)
            del self.tracked[id]
            self.touch()

    def count_gone(self, calls: int) -> None:
        """Counts open calls that were proven gone, and forgotten in the kernel."""
        self._swept += calls

    def touch(self) -> None:
        """Says that its instances changed."""
        self.revision += 1
        self.notify()

    def end(self, status: Status, code: ReasonCode, reason: str, *, open_calls: int) -> None:
        """Freezes the ledger and the state. Its links must be closed, and the ring drained."""
        self._final = self._ledger(open_calls=open_calls, final=True)
        self.status, self.reason_code, self.reason = status, code, reason
        self.ended_boot_ns = boot_ns()
        self.ended.set()
        self.touch()

    def _ledger(self, *, open_calls: int, final: bool) -> Ledger:
        counted = Ledger(**dict[str, Any](self._engine.counters(self.slot)), open=open_calls, final=final)
        return replace(counted, no_return=counted.no_return + self._swept)

    @contextmanager
    def listen(self) -> Iterator[asyncio.Event]:
        """An event that is set at every change, while the context lasts."""
        event = asyncio.Event()
        self._listeners.add(event)
        try:
            yield event
        finally:
            self._listeners.discard(event)

    def close_images(self) -> None:
        """Closes its files: it attaches nothing any more."""
        for group in self.groups.values():
            os.close(group.fd)

    def notify(self) -> None:
        """Wakes the readers."""
        for event in self._listeners:
            event.set()
