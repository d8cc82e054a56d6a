"""All collectors of this host: starting, following processes, ending in time, keeping the ended ones for late readers."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import time
from collections.abc import Sequence
from contextlib import suppress

import structlog
from ulid import ULID

from coral.agent.attach import Attacher
from coral.agent.backpressure import Backpressure
from coral.agent.clock import boot_ns, wall_ns
from coral.agent.collector import Collector
from coral.agent.detach import Detacher
from coral.agent.event_rate import EventRate, bounded
from coral.agent.kept import Kept
from coral.agent.left_behind import left_behind
from coral.agent.lockdown import Switch
from coral.agent.naming import NotAuthorised
from coral.agent.open_calls import proven_gone
from coral.agent.outcomes import SENTENCES, exit_status, full, most_telling
from coral.agent.processes import Processes
from coral.agent.pump import Pump
from coral.agent.reloads import reloaded
from coral.agent.resolve import LibraryNotLoaded
from coral.agent.tally import Tally
from coral.events.record import EVENT, Array, by_slot
from coral.kernel.cookie import MAX_SITES
from coral.kernel.engine import Drained, Engine
from coral.kernel.layout import ControlKind
from coral.model.errors import CoralError, NotFound
from coral.model.probe import ProbeSpec
from coral.model.session import InstanceStatus, ReasonCode, Status
from coral.procfs.process import ProcessId
from coral.procfs.table import Changes, Entry

_TICK_S = 0.5
_ABOUT_TO_EXEC = 0x100 | 0x4000
"""CLONE_VM | CLONE_VFORK, as vfork and posix_spawn have it: such a child is about to call exec, and is not listed."""
_STAT_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

_log = structlog.get_logger(__name__)


class Collectors:
    """The collectors of one agent.

    Args:
        agent_id: This host.
        engine: The kernel layer.
        attacher: Brings processes in.
        processes: Those of the host.
        window_bytes: For the events of all collectors together.
        limit: How many may run at once.
        max_sites: In how many places one may probe.
        session_events_per_s: How many events one may report; 0 for any.
        events_per_s: How many all may report together.
        switch: Whether anything may be attached at all.
    """

    def __init__(
        self,
        *,
        agent_id: str,
        engine: Engine,
        attacher: Attacher,
        processes: Processes,
        window_bytes: int,
        limit: int,
        max_sites: int = MAX_SITES,
        session_events_per_s: int = 0,
        events_per_s: float = math.inf,
        switch: Switch | None = None,
    ) -> None:
        self.agent_id = agent_id
        self._engine = engine
        self._attacher = attacher
        self._processes = processes
        self._kept = Kept(events=window_bytes // EVENT.itemsize)
        self._pressure = Backpressure(room=self._kept.most_events)
        self._limit = limit
        self._max_sites = max_sites
        self._session_events_per_s = session_events_per_s
        self._rate = EventRate(events_per_s=events_per_s)
        self._switch = switch
        self._by_slot: dict[int, Collector] = {}
        self._starting: dict[str, asyncio.Task[Collector | CoralError]] = {}
        self._detacher = Detacher(engine, attacher)
        self._pump = Pump(engine, self._deliver)
        self._tasks = asyncio.TaskGroup()
        self._over = False
        self._ready = asyncio.Event()
        processes.on_change(self._follow_table)

    def get(self, collector_id: str) -> Collector:
        """The collector of that id, running or ended within the last ten minutes.

        Raises:
            NotFound: There is none.
        """
        found = self._kept.get(collector_id)
        if found is None:
            raise NotFound(
                f"There is no collector {collector_id!r} on agent {self.agent_id}.",
                hint="Ended ones are kept for ten minutes; the colony keeps their events.",
            )
        return found

    @property
    def running(self) -> list[Collector]:
        """Those that have not ended."""
        return self._kept.running

    @property
    def pump(self) -> Pump:
        """What takes from the kernel what it reports."""
        return self._pump

    @property
    def windows(self) -> tuple[int, int]:
        """How many events are kept for readers, of all collectors, and how many may be."""
        return self._kept.events, self._kept.most_events

    def tally(self) -> Tally:
        """What all collectors of this life of the agent counted, the ended ones included; reads the kernel's counters."""
        return self._kept.tally()

    @property
    def starting(self) -> list[str]:
        """The sessions for which it is attaching at this moment."""
        return list(self._starting)

    async def run(self) -> None:
        """Drains, follows processes and ends collectors, until cancelled; then every probe is gone."""
        loop = asyncio.get_running_loop()
        with self._attacher.leases.watched(lambda fd: loop.call_soon_threadsafe(self._make_way, fd)):
            try:
                async with self._tasks:
                    self._tasks.create_task(self._pump.run())
                    self._tasks.create_task(self._housekeeping())
                    self._ready.set()
            finally:
                # What matters now is that nothing stays in any process when this one goes.
                await asyncio.shield(asyncio.to_thread(self._attacher.close_links, list(self._by_slot.values())))
                self._detacher.guards.close()
                await asyncio.shield(self._tell_the_last())

    async def start(
        self,
        spec: ProbeSpec,
        *,
        session_id: str,
        actor: str,
        of_colony: bool,
        authorised: frozenset[bytes] | None = None,
    ) -> Collector:
        """Starts a collector, or returns the one that this session has here already.

        Args:
            spec: What is asked for.
            session_id: Of the session it belongs to; empty for none.
            actor: Who asked, for the log.
            of_colony: Whether a colony asked.
            authorised: The marks of the functions that it may probe; None for any that the name comes to. A collector that
                runs takes more of them up.

        Raises:
            NotFound: No instance of the service, or no such function in any of them.
            InvalidArgument: Several functions answer to the name.
            FailedPrecondition: Every instance failed, with the reason; or the host is locked down.
            NotAuthorised: The name comes to a function in one of them that is not authorised; nothing is attached then.
            ResourceExhausted: Too many collectors run.
        """
        await self._ready.wait()
        known = next((found for found in self._kept if session_id and found.session_id == session_id), None)
        if known is not None:
            if authorised is not None and known.authorise(authorised):
                await self._attacher.join(known, await self._processes.instances(spec.service_name))
                self._activate(known)
            return known
        key = session_id or str(ULID())
        task = self._starting.get(key)
        if task is None:
            # A task of its own, so that a caller who gives up does not leave half an attach behind.
            task = self._tasks.create_task(self._outcome(spec, session_id, actor, of_colony, authorised))
            self._starting[key] = task
            task.add_done_callback(lambda _: self._starting.pop(key, None))
        outcome = await asyncio.shield(task)
        if isinstance(outcome, CoralError):
            raise outcome
        return outcome

    async def lock_down(self) -> None:
        """Ends all collectors, since the host was locked down; returns once they have."""
        running = self.running
        for collector in running:
            collector.request_stop(ReasonCode.LOCKDOWN)
        await asyncio.gather(*(collector.ended.wait() for collector in running))

    async def stop(self, collector_id: str) -> Collector:
        """Ends a collector as ``detached``; one that has ended stays as it is.

        Raises:
            NotFound: There is none.
        """
        collector = self.get(collector_id)
        collector.request_stop(ReasonCode.USER)
        await collector.ended.wait()
        return collector

    async def _outcome(
        self, spec: ProbeSpec, session_id: str, actor: str, of_colony: bool, authorised: frozenset[bytes] | None
    ) -> Collector | CoralError:
        try:
            return await self._start(spec, session_id, actor, of_colony, authorised)
        except CoralError as error:
            _log.info(
                "attach refused",
                session_id=session_id,
                service=spec.service_name,
                function=spec.function_name,
                reason=str(error),
                actor=actor,
            )
            return error

    async def _start(
        self, spec: ProbeSpec, session_id: str, actor: str, of_colony: bool, authorised: frozenset[bytes] | None
    ) -> Collector:
        accepted_boot_ns, accepted_wall_ns = boot_ns(), wall_ns()
        spec = bounded(spec, events_per_s=self._session_events_per_s)
        self._check_lockdown()
        if len(self.running) + len(self._starting) > self._limit:
            raise full(self.agent_id, self._limit, self.running)
        entries = await self._processes.instances(spec.service_name)
        if not entries:
            raise self._processes.no_service(spec.service_name)
        collector = Collector(
            collector_id=str(ULID()),
            session_id=session_id,
            of_colony=of_colony,
            agent_id=self.agent_id,
            spec=spec,
            engine=self._engine,
            slot=self._engine.acquire_slot(spec.config, spec.filter),
            accepted_boot_ns=accepted_boot_ns,
            accepted_wall_ns=accepted_wall_ns,
            actor=actor,
            authorised=authorised,
            max_sites=self._max_sites,
        )
        self._by_slot[collector.slot] = collector
        try:
            errors = await self._attacher.join(collector, entries)
            # Processes that were forked or started while it attached, before their parent was a member.
            errors += await self._attacher.join(collector, await self._processes.instances(spec.service_name))
            waits = bool(errors) and all(isinstance(error, LibraryNotLoaded) for error in errors)
            self._check_lockdown()  # one that began meanwhile does not know of this collector
            unauthorised = next((error for error in errors if isinstance(error, NotAuthorised)), None)
            if unauthorised is not None:
                raise unauthorised  # whoever asks can have that decided, and then all of it is attached or nothing
            if not _attached(collector) and not waits:
                raise most_telling(errors)
        except BaseException:
            await asyncio.shield(self._discard(collector))
            raise
        if _attached(collector):
            collector.status = Status.ACTIVE
        self._kept.add(collector)
        self._tasks.create_task(self._live(collector))
        _log.info(
            "attached",
            collector_id=collector.collector_id,
            session_id=session_id,
            service=spec.service_name,
            function=collector.function_name,
            instances=len(collector.tracked),
            actor=actor,
        )
        return collector

    def _check_lockdown(self) -> None:
        if self._switch is not None:
            self._switch.check(self.agent_id)

    async def _live(self, collector: Collector) -> None:
        """Waits for the end of a collector, and ends it."""
        while (remaining_s := collector.remaining_s) > 0 and not collector.stop_requested.is_set():
            # In short steps: asyncio's clock stands still while the host is suspended, CLOCK_BOOTTIME does not.
            with suppress(TimeoutError):
                async with asyncio.timeout(min(remaining_s, _TICK_S)):
                    await collector.stop_requested.wait()
        code = collector.stop_code or ReasonCode.DEADLINE
        status = Status.EXPIRED if code is ReasonCode.DEADLINE else Status.DETACHED
        await self._finish(collector, status, code)

    async def _finish(self, collector: Collector, status: Status, code: ReasonCode) -> None:
        """Detaches, verifies, takes the last events and closes the books."""
        # Before anything is waited for, also who brings a process in at this moment: reading its program may take long.
        collector.ending.set()
        kept = await self._detacher.take_back(collector)
        async with collector.changing:
            kept |= await self._detacher.take_back(collector)  # what was attached meanwhile
            await self._pump.flush()
            gone = await asyncio.to_thread(
                self._engine.forget_calls, collector.slot, lambda keys, values: proven_gone(collector, keys, values)
            )
            collector.count_gone(gone)
            others = [other for other in self._by_slot.values() if other is not collector]
            left = await asyncio.to_thread(left_behind, collector, others, kept.keys())
            kept.update(left)
            keys, _ = await asyncio.to_thread(self._engine.open_calls, collector.slot)
            for tracked in list(collector.tracked.values()):
                if tracked.instance.status is InstanceStatus.ATTACHED:
                    reason = kept.get(tracked.id.pid, tracked.instance.reason)
                    collector.update(tracked, status=InstanceStatus.DETACHED, reason=reason)
            reason = next(iter(kept.values()), SENTENCES.get(code, ""))
            collector.end(status, code, reason, open_calls=len(keys))
            collector.close_images()
            self._by_slot.pop(collector.slot, None)
            await asyncio.to_thread(self._engine.release_slot, collector.slot)
        if left:
            _log.error("detach not verified", collector_id=collector.collector_id, reasons=left)
        _log.info(
            "detached",
            collector_id=collector.collector_id,
            session_id=collector.session_id,
            status=status.value,
            reason_code=code.value,
        )

    async def _discard(self, collector: Collector) -> None:
        """Takes back what a refused attach has done."""
        await asyncio.to_thread(self._attacher.close_links, [collector])
        await self._pump.flush()
        collector.close_images()
        self._by_slot.pop(collector.slot, None)
        await asyncio.to_thread(self._engine.release_slot, collector.slot)

    async def _follow_table(self, changes: Changes) -> None:
        """Processes of a probed service that started or called exec join; refused ones that ended are forgotten."""
        for collector in self.running:
            for entry in changes.exited:
                collector.forget_refused(entry.process.id)
            mine = [entry for entry in changes.started if entry.named.name == collector.spec.service_name]
            if mine:
                # On its own, so that a program that takes long to read holds up no other service.
                self._tasks.create_task(self._take_in(collector, mine))

    async def _take_in(self, collector: Collector, entries: Sequence[Entry]) -> None:
        """Brings processes into a collector that runs."""
        await self._attacher.join(collector, entries)
        if not collector.ended.is_set():
            self._activate(collector)

    async def _housekeeping(self) -> None:
        lost = self._engine.lost()
        for turn in itertools.count():
            await asyncio.sleep(_TICK_S)
            running = self.running
            if running:
                open_now = await asyncio.to_thread(self._engine.count_open_calls)
                for collector in running:
                    collector.open_now = open_now.get(collector.slot, 0)
            for collector in running:
                if collector.status is Status.PENDING:
                    await self._attacher.join(collector, self._processes.known_instances(collector.spec.service_name))
                    self._activate(collector)
                await self._follow_libraries(collector, turn=turn)
            before, lost = lost, self._engine.lost()
            if lost != before:
                _log.error("the kernel's tables of processes were full: forked children may be missing", **lost)
            self._end_the_loudest(running)
            self.relieve()
            await asyncio.to_thread(self._detacher.guards.release)
            self._kept.forget_old()

    def _end_the_loudest(self, running: Sequence[Collector]) -> None:
        """Ends the session that reports the most while all together report more than this host may."""
        reported = {collector.collector_id: collector.window.last_sequence for collector in running}
        loudest = self._rate.too_much(reported, now=time.monotonic())
        if loudest:
            _log.warning("too many events for this host", collector_id=loudest, events=reported[loudest])
            self.get(loudest).request_stop(ReasonCode.OVER_BUDGET)

    async def _follow_libraries(self, collector: Collector, *, turn: int) -> None:
        """Processes that have loaded another file in the place of the probed library join anew, with that."""
        found = await asyncio.to_thread(reloaded, list(collector.tracked.values()), turn=turn)
        for tracked in found:
            if collector.tracked.get(tracked.id) is tracked:
                self._engine.remove_member(collector.slot, tracked.id.pid)
                collector.retire(tracked, status=InstanceStatus.DETACHED, reason="it has loaded another file since")
                await self._let_go(collector, tracked.number)
        if found:
            ids = {tracked.id for tracked in found}
            entries = self._processes.known_instances(collector.spec.service_name)
            await self._attacher.join(collector, [entry for entry in entries if entry.process.id in ids])

    def _activate(self, collector: Collector) -> None:
        if collector.status is Status.PENDING and _attached(collector):
            collector.status = Status.ACTIVE
            collector.notify()
            _log.info("active", collector_id=collector.collector_id, session_id=collector.session_id)

    def _deliver(self, drained: Drained, offset_ns: int) -> None:
        for row in drained.control:
            if not self._over:
                self._follow(row)
        for slot, events in by_slot(drained.events):
            collector = self._by_slot.get(slot)
            if collector is not None:
                collector.receive(events, offset_ns)
        self._kept.bound_windows()
        self.relieve()

    async def _tell_the_last(self) -> None:
        """Takes in what the kernel counted until the end, and wakes those who read: of a session that goes on after a restart
        they lack no more than the time in between.
        """
        self._over = True
        await self._pump.flush()
        for collector in self._by_slot.values():
            collector.notify()

    def relieve(self) -> None:
        """Holds back, in the kernel, collectors whose readers are too far behind, and lets go those that have caught up.

        To be called when events have come, and when a reader has taken some.
        """
        waiting = {slot: collector.waiting for slot, collector in self._by_slot.items()}
        begun, ended = self._pressure.look({slot: events for slot, events in waiting.items() if events is not None})
        for slot in begun | ended:
            self._engine.hold(slot, held=slot in begun)
            if slot in self._by_slot:
                log = _log.warning if slot in begun else _log.info
                text = "calls are held back: their reader is behind" if slot in begun else "calls are reported again"
                log(text, collector=self._by_slot[slot].collector_id, waiting=waiting[slot])

    def _follow(self, row: Array) -> None:
        """Acts on one control record of the kernel."""
        pid, kind, at_boot_ns = int(row["pid"]), int(row["kind"]), int(row["boot_ns"])
        if kind == ControlKind.FORK:
            collector = self._by_slot.get(int(row["slot"]))
            if collector is None or int(row["clone_flags"]) & _ABOUT_TO_EXEC == _ABOUT_TO_EXEC:
                return
            self._processes.fork_seen(int(row["parent"]), pid)
            start_ns = int(row["start_boot_ns"]) // _STAT_TICK_NS * _STAT_TICK_NS
            child = self._attacher.adopt(
                collector,
                parent=int(row["parent"]),
                child=ProcessId(pid=pid, start_time_ns=start_ns),
                number=int(row["instance"]),
                since_boot_ns=at_boot_ns,
            )
            if child is not None:
                self._tasks.create_task(self._attacher.link_child(collector, child))
            return
        for collector in self._by_slot.values():
            for tracked in [found for found in collector.tracked.values() if found.id.pid == pid]:
                if at_boot_ns < tracked.since_boot_ns:
                    continue  # the exec that started the program which was attached meanwhile, or the end of an earlier pid
                if kind == ControlKind.EXEC:
                    collector.retire(tracked, status=InstanceStatus.EXITED, reason="it runs another program now (exec)")
                else:
                    collector.retire(tracked, status=InstanceStatus.EXITED, exit_status=exit_status(int(row["status"])))
                if tracked.number:
                    self._tasks.create_task(self._let_go(collector, tracked.number))
        if kind == ControlKind.EXEC:
            self._processes.exec_seen(pid)
        else:
            self._processes.exit_seen(pid)

    async def _let_go(self, collector: Collector, number: int) -> None:
        """Forgets the open calls of a process that is gone, and the links that were for it alone.

        A file that no process runs may be written over in place. The kernel would then put the breakpoints into whatever code
        is at their offsets, in every process that starts from it.
        """
        async with collector.changing:
            if not collector.ended.is_set():
                await self._attacher.detach_unused(collector)
                gone = await asyncio.to_thread(
                    self._engine.forget_calls, collector.slot, lambda keys, _: keys["instance"] == number
                )
                collector.count_gone(gone)

    def _make_way(self, fd: int) -> None:
        """Somebody wants to write a file in place that carries probes."""
        for collector in self._by_slot.values():
            self._tasks.create_task(self._attacher.yield_to_writer(collector, fd))


def _attached(collector: Collector) -> bool:
    return any(instance.status is InstanceStatus.ATTACHED for instance in collector.instances)
