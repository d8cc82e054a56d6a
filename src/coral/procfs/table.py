"""The processes of this host and the services they belong to, kept by identity so that looking again is cheap.

What a look costs (x86-64 VM): listing /proc with inodes 1 µs a process, /proc/PID/stat 10 µs, reading a process whole 100 µs.
So a refresh lists all, and reads stat where something may have changed: processes that the kernel notified about, young ones
(a shell's child execs within moments), and a share of the others, so that each is looked at every few refreshes even when
notifications were lost. The inode of /proc/PID belongs to the kernel's struct pid (fs/proc/base.c: proc_pid_make_inode), so
another inode tells that a pid was reused, without reading anything.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coral.model.errors import CoralError, PermissionDenied, Unavailable
from coral.procfs.cgroup import unit_of
from coral.procfs.coral_self import is_coral
from coral.procfs.files import PROC, ProcessGone
from coral.procfs.process import Process, ProcessId, read_environ, read_process
from coral.procfs.service import NAMING_VARIABLES, Named, ServiceRule, name_process
from coral.procfs.stat import ExecMark, read_stat

_YOUNG_NS = 5_000_000_000
_MIN_SHARE = 64
_ROUND_REFRESHES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A process that is an instance of a service.

    Attributes:
        process: As it was read after its last exec.
        named: Its service.
        inherited: Whether it is of its parent's service because it was forked from it and has not called exec since.
    """

    process: Process
    named: Named
    inherited: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a refresh found. A process that called exec is in both: what it was has ended, what it is has started.

    Attributes:
        started: New entries, parents before their children.
        exited: Entries that are no more.
    """

    started: list[Entry] = field(default_factory=list)
    exited: list[Entry] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSummary:
    """One service of this host.

    Attributes:
        name: Its name.
        rule: Which rule gave it; of several, that of its oldest instance.
        instances: How many processes.
        sdk_addr: Where an SDK in it says that it answers; empty when there is none.
        sdk_version: Of that SDK.
    """

    name: str
    rule: str
    instances: int
    sdk_addr: str
    sdk_version: str


@dataclass(slots=True, kw_only=True)
class _Reading:
    """What is known of one exec: enough to recognise a process forked from it, and to name that."""

    id: ProcessId
    mark: ExecMark
    environ: Mapping[str, str]
    entry: Entry | None = None
    coral: bool = False


@dataclass(slots=True, kw_only=True)
class _Known:
    """A pid that was looked at.

    ``process`` is None for what is no entry and was not read further: a zombie, or a process that may not be read now.
    ``environ`` is what the process was started with as far as that is known, also when it has written over it.
    ``coral`` says that it is Coral's own, or was forked from that and has not called exec since.
    """

    inode: int
    id: ProcessId
    mark: ExecMark
    process: Process | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    entry: Entry | None = None
    coral: bool = False
    young_until_ns: int = 0

    def as_reading(self) -> _Reading:
        """What a process forked from this one needs to know."""
        return _Reading(id=self.id, mark=self.mark, environ=self.environ, entry=self.entry, coral=self.coral)


class ProcessTable:
    """The processes of this host by service. Safe to use from several threads."""

    def __init__(
        self,
        *,
        rules: Sequence[ServiceRule] = (),
        only: ProcessId | None = None,
        own_pid: int | None = None,
        proc: Path = PROC,
    ) -> None:
        """Reads nothing but the agent's own process yet.

        Args:
            rules: Of the agent's configuration, in order.
            only: The one process that is an instance, with those forked from it; None when all are.
            own_pid: The agent; this process when left out.
            proc: Where proc is mounted.

        Raises:
            ProcessGone: There is no process ``own_pid``.
        """
        self._rules = tuple(rules)
        self._only = only
        self._own_pids = frozenset({os.getpid() if own_pid is None else own_pid})
        self._proc = proc
        self._own_unit = unit_of(read_process(next(iter(self._own_pids)), proc=proc).cgroup)
        self._lock = threading.Lock()
        self._known: dict[int, _Known] = {}
        self._services: dict[str, dict[int, Entry]] = {}
        self._notified: set[int] = set()
        self._execs: set[int] = set()
        self._readings: dict[int, _Reading] = {}
        """Environments read at exec, by pid, until the next refresh: the program may write over them within milliseconds."""
        self._origins: dict[int, _Reading] = {}
        """What a forked child was forked from, by the child's pid, until the next refresh: the parent may be gone by then."""
        self._unchecked: list[int] = []

    def refresh(self, *, thorough: bool = False) -> Changes:
        """Looks at the processes anew.

        Args:
            thorough: Look at every process, as before an attach, instead of those that are likely to have changed.

        Returns:
            What changed since the last refresh.
        """
        with self._lock:
            changes = Changes()
            listed = self._list()
            for pid in self._known.keys() - listed.keys():
                self._forget(pid, changes)
            # Without address space randomisation an exec of the same program leaves no mark of its own.
            fresh = (listed.keys() - self._known.keys()) | (self._execs & listed.keys())
            for pid in self._suspects(listed, thorough=thorough):
                if not self._unchanged(pid, listed[pid]):
                    fresh.add(pid)
            found = self._read(fresh, listed)
            for pid in fresh:
                self._forget(pid, changes)
            for pid in self._parents_first(found):
                self._admit(found[pid], changes)
            self._notified.clear()
            self._execs.clear()
            self._readings.clear()
            self._origins.clear()
            return changes

    def notify_exec(self, pid: int) -> None:
        """The kernel said that a process called exec. Its environment is read at once, the rest at the next refresh."""
        with self._lock:
            self._execs.add(pid)
            self._origins.pop(pid, None)
            self._readings.pop(pid, None)
            try:
                id, mark, environ = read_environ(pid, proc=self._proc)
            except (ProcessGone, PermissionDenied, Unavailable):
                # The next refresh reads the process whole, or finds that it is gone.
                return
            if not environ.overwritten:
                self._readings[pid] = _Reading(id=id, mark=mark, environ=environ.variables)

    def notify_fork(self, parent: int, child: int) -> None:
        """The kernel said that a process was forked. The child is of its parent's service until it calls exec."""
        with self._lock:
            self._notified.add(child)
            self._readings.pop(child, None)
            origin = self._readings.get(parent) or self._origins.get(parent)
            known = self._known.get(parent)
            if origin is None and known is not None:
                origin = known.as_reading()
            if origin is not None:
                self._origins[child] = origin

    def notify_exit(self, pid: int) -> None:
        """The kernel said that a process ended. Until its parent has waited for it, only a look at its state shows that."""
        with self._lock:
            self._notified.add(pid)

    def entries(self, service: str) -> list[Entry]:
        """The instances of a service as of the last refresh, oldest first; none when there is no such service."""
        with self._lock:
            return self._sorted(service)

    def all_entries(self) -> list[Entry]:
        """The instances of all services as of the last refresh."""
        with self._lock:
            return [entry for instances in self._services.values() for entry in instances.values()]

    def coral_pids(self) -> set[int]:
        """Coral's own processes as of the last refresh, and what was forked from them without an exec since."""
        with self._lock:
            return {pid for pid, known in self._known.items() if known.coral} | self._own_pids

    def pids(self) -> set[int]:
        """All processes there are now."""
        return set(self._list())

    def services(self) -> dict[str, ServiceSummary]:
        """All services as of the last refresh, by name, in the order of their names."""
        with self._lock:
            return {name: _summary(name, self._sorted(name)) for name in sorted(self._services)}

    def entry_of(self, pid: int) -> Entry | None:
        """The entry of a pid as of the last refresh."""
        with self._lock:
            known = self._known.get(pid)
            return known.entry if known else None

    def _sorted(self, service: str) -> list[Entry]:
        found = self._services.get(service, {}).values()
        return sorted(found, key=lambda entry: (entry.process.id.start_time_ns, entry.process.id.pid))

    def _list(self) -> dict[int, int]:
        """All pids with the inode of their directory."""
        with os.scandir(self._proc) as listing:
            return {int(entry.name): entry.inode() for entry in listing if entry.name.isdecimal()}

    def _suspects(self, listed: Mapping[int, int], *, thorough: bool) -> Iterable[int]:
        """Known pids that are looked at in this refresh."""
        known = self._known
        if thorough:
            return [pid for pid in known if pid in listed]
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        chosen = {pid for pid, state in known.items() if state.young_until_ns > now_ns or state.inode != listed[pid]}
        chosen |= self._notified & known.keys()
        if not self._unchecked:
            self._unchecked = list(known)
        share = max(_MIN_SHARE, len(known) // _ROUND_REFRESHES)
        chosen.update(pid for pid in self._unchecked[:share] if pid in known)
        del self._unchecked[:share]
        return chosen

    def _unchanged(self, pid: int, inode: int) -> bool:
        """Whether a known pid is the process, and runs the program, that was read."""
        known = self._known[pid]
        try:
            stat = read_stat(pid, proc=self._proc)
        except ProcessGone:
            return False
        known.inode = inode
        same_program = stat.start_time_ns == known.id.start_time_ns and stat.mark == known.mark
        return same_program and stat.is_dead == (known.process is None)

    def _read(self, pids: Iterable[int], listed: Mapping[int, int]) -> dict[int, _Known]:
        """Reads processes. What vanished is left out; what cannot be read, and zombies, come without ``process``."""
        found: dict[int, _Known] = {}
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        for pid in pids:
            try:
                stat = read_stat(pid, proc=self._proc)
                id = ProcessId(pid=pid, start_time_ns=stat.start_time_ns)
                young_since_ns = now_ns if pid in self._known else id.start_time_ns
                state = found[pid] = _Known(
                    inode=listed[pid], id=id, mark=stat.mark, young_until_ns=young_since_ns + _YOUNG_NS
                )
                state.process = process = read_process(pid, proc=self._proc)
            except CoralError:
                # Gone, a zombie, not readable, or replacing its program all the time: looked at again when its turn comes.
                continue
            state.id, state.mark = process.id, process.mark
        return found

    def _forget(self, pid: int, changes: Changes) -> None:
        known = self._known.pop(pid, None)
        if known is None or known.entry is None:
            return
        changes.exited.append(known.entry)
        instances = self._services[known.entry.named.name]
        del instances[pid]
        if not instances:
            del self._services[known.entry.named.name]

    def _admit(self, state: _Known, changes: Changes) -> None:
        """Makes a process known and, unless it is the kernel's or Coral's, an entry of a service."""
        self._known[state.id.pid] = state
        process = state.process
        if process is None or process.is_kernel_thread:
            return
        origin = self._origin(process)
        state.environ = self._environ(process, origin)
        state.coral = is_coral(process, own_pids=self._own_pids) or (origin is not None and origin.coral)
        if state.coral:
            return
        named: Named | None
        if origin is not None and origin.entry is not None:
            named, inherited = origin.entry.named, True
        else:
            named, inherited = self._name(process, state.environ), False
        if named is None:
            return
        state.entry = Entry(process=process, named=named, inherited=inherited)
        self._services.setdefault(named.name, {})[process.id.pid] = state.entry
        changes.started.append(state.entry)

    def _name(self, process: Process, environ: Mapping[str, str]) -> Named | None:
        if self._only is not None and process.id != self._only:
            return None
        return name_process(process, rules=self._rules, inherited_environ=environ, own_unit=self._own_unit, proc=self._proc)

    def _origin(self, process: Process) -> _Reading | None:
        """What the process was forked from without an exec since, as far as that is known."""
        if process.id.pid in self._execs:
            return None
        parent = self._parent_of(process)
        if parent is not None and parent.process is not None and _same_image(process, parent.process):
            return parent.as_reading()
        notified = self._origins.get(process.id.pid)
        if notified is None or notified.mark != process.mark:
            return None
        holder = self._known.get(notified.id.pid)
        if holder is not None and (holder.id, holder.mark) == (notified.id, notified.mark):
            return holder.as_reading()
        return notified

    def _environ(self, process: Process, origin: _Reading | None) -> Mapping[str, str]:
        """What the process was started with: its own, else as read at its exec, else as its nearest ancestors have it."""
        if not process.environ_overwritten:
            return process.environ
        reading = self._readings.get(process.id.pid)
        if reading is not None and (reading.id, reading.mark) == (process.id, process.mark):
            return reading.environ
        if origin is not None:
            return {**origin.environ, **process.environ}
        environ = dict(process.environ)
        ancestor = self._parent_of(process)
        while ancestor is not None and ancestor.process is not None:
            for name in NAMING_VARIABLES:
                if name in ancestor.environ:
                    environ.setdefault(name, ancestor.environ[name])
            ancestor = self._parent_of(ancestor.process)
        return environ

    def _parents_first(self, found: Mapping[int, _Known]) -> list[int]:
        """The pids such that what a process was forked from comes before it, also where both started in one clock tick."""

        def depth(pid: int) -> int:
            chain: list[int] = []
            while pid in found and pid not in chain:
                chain.append(pid)
                process, origin = found[pid].process, self._origins.get(pid)
                pid = process.ppid if process else 0
                if origin is not None and origin.id.pid in found:
                    pid = origin.id.pid
            return len(chain)

        return sorted(found, key=lambda pid: (depth(pid), found[pid].id.start_time_ns, pid))

    def _parent_of(self, process: Process) -> _Known | None:
        """The parent, unless its pid has been given to a younger process, which is no parent."""
        parent = self._known.get(process.ppid)
        if parent is None or parent.id.start_time_ns > process.id.start_time_ns or parent.id == process.id:
            return None
        return parent


def _same_image(child: Process, parent: Process) -> bool:
    """Whether a child still runs the exec of its parent, rather than one of its own."""
    return child.executable == parent.executable and child.mark == parent.mark


def _summary(name: str, instances: Sequence[Entry]) -> ServiceSummary:
    first = next((entry for entry in instances if not entry.inherited), instances[0])
    sdk = next((entry.named for entry in instances if entry.named.sdk_addr), first.named)
    return ServiceSummary(
        name=name, rule=first.named.rule, instances=len(instances), sdk_addr=sdk.sdk_addr, sdk_version=sdk.sdk_version
    )
