"""The kernel layer's face: slots, members, attachments, counters and records. Blocking; the agent calls it from threads."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from coral.events.record import RECORD
from coral.kernel import link
from coral.kernel.cookie import cookie_of
from coral.kernel.layout import (
    ACTIVE,
    CALL,
    CALL_KEY,
    CONTROL,
    COUNTERS,
    MAX_SLOTS,
    MEMBER,
    MEMBER_KEY,
    SLOT,
    STATE,
    SlotFlag,
)
from coral.kernel.maps import Map
from coral.kernel.programs import Programs
from coral.kernel.ring import AT_ONCE, Ring
from coral.model.addresses import FileOffset
from coral.model.errors import FailedPrecondition, ResourceExhausted
from coral.model.probe import Mode, ProbeConfig, ProbeFilter
from coral.model.site import FunctionPlan, Method, Site

Array = npt.NDArray[np.void]
CONTROL_RING_BYTES = 1 << 20
_BURST_NS = 100_000_000  # a rate limit may be used up to this much ahead
_SECOND_NS = 1_000_000_000
_DETACHING_THREADS = 32


class Attachment:
    """What one plan holds in the kernel: links for its exits and for its entries.

    Args:
        exit_fds: Of the exits.
        entry_fds: Of the entries.
    """

    def __init__(self, exit_fds: tuple[int, ...], entry_fds: tuple[int, ...]) -> None:
        self._fds = [*entry_fds, *exit_fds]
        self._lock = threading.Lock()

    def detach(self) -> None:
        """Entries first, so that every call that was counted can still be seen to return. Blocks up to a few 100 ms.

        Any thread may do it, and several: when it returns, nothing is attached.
        """
        with self._lock:
            while self._fds:
                os.close(self._fds.pop(0))


@dataclass(frozen=True, slots=True)
class Drained:
    """What a drain brought.

    Attributes:
        control: Process control records, all that happened before the newest of the events.
        events: The events.
        more: Whether a drain brought as much as it may: the rings may hold more.
    """

    control: Array
    events: Array
    more: bool = False


class Engine:
    """The programs, loaded, and their maps.

    Args:
        ring_bytes: Of the event ring, a power of two.
        max_open_calls: That can be tracked at once, on the whole host.

    Raises:
        FailedPrecondition: This host cannot run them.
    """

    def __init__(self, *, ring_bytes: int = 16 << 20, max_open_calls: int = 131_072) -> None:
        _require_pids_of_the_kernel()
        self._programs = Programs({"events": ring_bytes, "calls": max_open_calls})
        if not link.supported(self._programs.program_fd("on_entry")):
            self._programs.close()
            raise FailedPrecondition(
                f"This kernel ({os.uname().release}) has no uprobe_multi links.", hint="Linux 6.6 or later is needed."
            )
        self._slots = Map(self._programs.map_fd("slots"), "u4", SLOT)
        self._counters = Map(self._programs.map_fd("counters"), "u4", COUNTERS)
        self._state = Map(self._programs.map_fd("state"), "u4", STATE)
        self._active = Map(self._programs.map_fd("active"), "u4", ACTIVE)
        self._calls = Map(self._programs.map_fd("calls"), CALL_KEY, CALL)
        self._members = Map(self._programs.map_fd("members"), MEMBER_KEY, MEMBER)
        self._events = Ring(self._programs.map_fd("events"), ring_bytes, RECORD)
        self._control = Ring(self._programs.map_fd("control"), CONTROL_RING_BYTES, CONTROL)
        self._poll = select.epoll()
        self._poll.register(self._events.fd, select.EPOLLIN)
        self._poll.register(self._control.fd, select.EPOLLIN)
        self._lock = threading.Lock()
        self._used: set[int] = set()
        self._leaving: set[int] = set()
        self._next_instance = 1
        self._attached: WeakSet[Attachment] = WeakSet()
        self._forbidden = ""

    @property
    def methods(self) -> tuple[str, ...]:
        """The ways of attaching that this host offers."""
        return ("uprobe_multi",)

    def acquire_slot(self, config: ProbeConfig, bounds: ProbeFilter) -> int:
        """A slot with fresh counters, for one collector.

        Raises:
            ResourceExhausted: All are taken.
        """
        with self._lock:
            free = next((slot for slot in range(MAX_SLOTS) if slot not in self._used), None)
            if free is None:
                raise ResourceExhausted(
                    f"All {MAX_SLOTS} probes of this host are in use.", hint="Stop a session first: coral debug session list."
                )
            self._counters.put(free, np.zeros(1, COUNTERS))
            self._slots.put(free, _slot(config, bounds))
            self._used.add(free)
            self._set_active()
            return free

    def begin_detach(self, slot: int) -> None:
        """Says that the attachments of a slot are about to be detached: returns without an entry are no orphans any more."""
        self._flag(slot, SlotFlag.CLOSING, on=True)

    def hold(self, slot: int, *, held: bool) -> None:
        """Has the calls of a slot counted as ``rate_limited`` instead of reported, or reported again."""
        self._flag(slot, SlotFlag.HELD, on=held)

    def _flag(self, slot: int, flag: SlotFlag, *, on: bool) -> None:
        with self._lock:  # what is read and written back is also what another thread may change
            wanted = self._slots.get(slot)
            if wanted is not None:
                flags = int(wanted["flags"][0])
                wanted["flags"] = flags | flag if on else flags & ~flag
                self._slots.put(slot, wanted)

    def release_slot(self, slot: int) -> None:
        """Gives a slot back, once all its attachments are detached; forgets its members and open calls."""
        with self._lock:
            self._leaving.add(slot)
            self._set_active()  # no child of a member is born into it any more
        for map_, name in ((self._members, "slot"), (self._calls, "slot")):
            for keys, _ in list(map_.batches()):
                for key in keys[keys[name] == slot]:
                    map_.delete(key)
        with self._lock:  # only now: what is forgotten above must not be the next collector's
            self._leaving.discard(slot)
            self._used.discard(slot)

    def add_member(self, slot: int, pid: int, *, group: int = 0) -> int:
        """Makes a process count for a slot, and every process it forks from now on.

        Args:
            slot: Of the collector.
            pid: The process.
            group: The image in which its calls count; sites that were attached with another one are not its.

        Returns:
            The number that names it in records.

        Raises:
            OSError: The table of members is full.
        """
        found = self._members.get((slot, pid))
        if found is not None and found["group"][0] == group:
            return int(found["instance"][0])  # forked from a member meanwhile
        with self._lock:
            number = self._next_instance
            self._next_instance += 1
        member = np.zeros(1, MEMBER)
        member["instance"], member["group"] = number, group
        self._members.put((slot, pid), member)
        return number

    def member(self, slot: int, pid: int) -> int | None:
        """The number of a member; None when the process is none."""
        found = self._members.get((slot, pid))
        return None if found is None else int(found["instance"][0])

    def remove_member(self, slot: int, pid: int) -> None:
        """Lets a process go."""
        self._members.delete((slot, pid))

    def attach(
        self, slot: int, path: str, plan: FunctionPlan, *, first_site: int, mode: Mode, pid: int = 0, group: int = 0
    ) -> Attachment:
        """Attaches a plan: exits before entries, so that no call is seen to enter whose return could be missed.

        Args:
            slot: Of the collector.
            path: Of the file, see ``link.create``.
            plan: What to attach.
            first_site: Index of the plan's first site among the collector's.
            mode: With ``COUNT`` only entries are attached, and they are ``unseen``.
            pid: Only this process, or 0 for all that map the file.
            group: Which of the collector's images this is; see ``add_member``.

        Raises:
            FailedPrecondition: The kernel refuses an instruction, or attaching is forbidden.
            OSError: Anything else.
        """
        attachment = self._attach(slot, path, plan, first_site=first_site, mode=mode, pid=pid, group=group)
        with self._lock:
            self._attached.add(attachment)
            forbidden = self._forbidden
        if forbidden:
            attachment.detach()
            raise FailedPrecondition(forbidden)
        return attachment

    def forbid(self, reason: str) -> None:
        """Has every attach fail from now on, also those under way.

        Args:
            reason: As a sentence, for who is refused; empty to allow attaching again.
        """
        with self._lock:
            self._forbidden = reason

    def detach_all(self) -> int:
        """Detaches whatever is attached, whoever else holds it; returns how much that was. Blocking.

        All at once: a detach waits for a grace period of the kernel, which they share when they wait together.
        """
        with self._lock:
            attached = list(self._attached)
        if attached:
            with ThreadPoolExecutor(min(_DETACHING_THREADS, len(attached))) as pool:
                list(pool.map(Attachment.detach, attached))
        return len(attached)

    def _attach(
        self, slot: int, path: str, plan: FunctionPlan, *, first_site: int, mode: Mode, pid: int, group: int
    ) -> Attachment:
        if self._forbidden:
            raise FailedPrecondition(self._forbidden)
        exit_fds: tuple[int, ...] = ()
        if mode is Mode.EVENTS and plan.exits:
            exit_fds = (self._link("on_exit", slot, path, plan, plan.exits, first_site, pid, mode, group),)
        try:
            entry_fd = self._link("on_entry", slot, path, plan, plan.entries, first_site, pid, mode, group)
        except BaseException:
            Attachment(exit_fds, ()).detach()
            raise
        return Attachment(exit_fds, (entry_fd,))

    def guard(self, path: str, offsets: Sequence[FileOffset], *, pid: int) -> int:
        """Puts a probe without effect at places of a file, in one process.

        Returns:
            The descriptor of the link; the probes are gone when it is closed.

        Raises:
            FailedPrecondition: The kernel refuses an instruction.
            OSError: Anything else.
        """
        return link.create(self._programs.program_fd("on_guard"), path, offsets, [0] * len(offsets), pid=pid)

    def counters(self, slot: int) -> dict[str, int]:
        """The kernel's counters of a slot, by the names of the ledger."""
        found = self._counters.get(slot)
        if found is None:  # an array map has every index
            raise KeyError(slot)
        return {name: int(found[name][0]) for name in COUNTERS.names or () if name not in _INTERNAL}

    def open_calls(self, slot: int) -> tuple[Array, Array]:
        """Keys and values of the calls of a slot that are tracked now."""
        keys, values = [], []
        for some_keys, some_values in self._calls.batches():
            mine = some_keys["slot"] == slot
            keys.append(some_keys[mine])
            values.append(some_values[mine])
        return np.concatenate(keys), np.concatenate(values)

    def count_open_calls(self) -> dict[int, int]:
        """How many calls are tracked now, by slot."""
        totals = np.zeros(MAX_SLOTS, "i8")
        for keys, _ in self._calls.batches():
            totals += np.bincount(keys["slot"], minlength=MAX_SLOTS)
        return {int(slot): int(totals[slot]) for slot in np.flatnonzero(totals)}

    def forget_calls(self, slot: int, gone: Callable[[Array, Array], npt.NDArray[np.bool_]]) -> int:
        """Removes the open calls for which ``gone(keys, values)`` is true; returns how many there were."""
        keys, values = self.open_calls(slot)
        return sum(self._calls.delete(key) for key in keys[gone(keys, values)]) if len(keys) else 0

    def lost(self) -> dict[str, int]:
        """How many control records and forked members found their table full."""
        found = self._state.get(0)
        if found is None:
            raise KeyError("state")
        return {name: int(found[name][0]) for name in ("control_lost", "members_lost")}

    def wait(self, timeout_s: float) -> None:
        """Blocks until a ring has something, or the time is up."""
        self._poll.poll(timeout_s)

    def drain(self) -> Drained:
        """Takes what the rings hold, up to ``AT_ONCE`` of each.

        Control is read after the events, so that the process of each is known by then; all of it, since its ring has room
        for fewer than that.
        """
        events = self._events.drain()
        control = self._control.drain()
        return Drained(control=control, events=events, more=max(len(events), len(control)) >= AT_ONCE)

    def close(self) -> None:
        """Unloads everything."""
        self._poll.close()
        self._events.close()
        self._control.close()
        self._programs.close()

    def _link(
        self,
        program: str,
        slot: int,
        path: str,
        plan: FunctionPlan,
        sites: Sequence[Site],
        first_site: int,
        pid: int,
        mode: Mode,
        group: int,
    ) -> int:
        unseen = mode is Mode.COUNT or plan.method is Method.ENTRY_ONLY
        index = {site: first_site + position for position, site in enumerate(plan.sites)}
        cookies = [
            cookie_of(
                site,
                slot=slot,
                index=index[site],
                pairing=plan.pairing,
                unseen=unseen,
                group=group,
                goid_offset=plan.goid_offset,
            )
            for site in sites
        ]
        return link.create(self._programs.program_fd(program), path, [site.offset for site in sites], cookies, pid=pid)

    def _set_active(self) -> None:
        bits = np.zeros(1, ACTIVE)
        bits["slots"] = sum(1 << slot for slot in self._used - self._leaving)
        self._active.put(0, bits)


def _require_pids_of_the_kernel() -> None:
    """The programs see a process by the pid that it has in the first pid namespace; the agent has to see the same.

    Raises:
        FailedPrecondition: It is in a namespace of its own, as in a container.
    """
    if Path("/proc/self/ns/pid").stat().st_ino != _FIRST_PID_NAMESPACE:
        raise FailedPrecondition(
            "The agent runs in a pid namespace of its own, where processes have other numbers than the kernel's probes see.",
            hint="Start it in the host's: docker run --pid=host, in Kubernetes hostPID: true.",
        )


_FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""PROC_PID_INIT_INO of include/linux/proc_ns.h."""
_INTERNAL = frozenset({"completed", "admitted", "arrival_ns"})


def _slot(config: ProbeConfig, bounds: ProbeFilter) -> Array:
    wanted = np.zeros(1, SLOT)
    wanted["min_ns"] = bounds.min_duration_ns
    wanted["max_ns"] = bounds.max_duration_ns
    if bounds.max_events_per_second:
        wanted["interval_ns"] = _SECOND_NS // bounds.max_events_per_second
        wanted["burst_ns"] = _BURST_NS
    wanted["max_events"] = config.max_events
    wanted["sample_rate"] = config.sample_rate
    wanted["flags"] = SlotFlag.COUNT_ONLY if config.mode is Mode.COUNT else 0
    return wanted
