"""One process: its identity, and what it says about itself, read so that all of it belongs to the same program."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from coral.model.errors import Unavailable
from coral.procfs.cgroup import telling_path
from coral.procfs.environ import Environ, parse_environ
from coral.procfs.files import PROC, ProcessGone, read_file, read_link
from coral.procfs.stat import ExecMark, Stat, read_stat
from coral.procfs.threads import memory_task

__all__ = ["Process", "ProcessGone", "ProcessId", "is_alive", "process_id", "read_environ", "read_process"]

_DELETED = " (deleted)"
_ATTEMPTS = 5
"""A program may exec while it is read; one that does so five times in a row within a millisecond each is left for later."""
_EXEC_PAUSE_S = 0.001
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """A process for good: pids are reused, a pid with its start is not.

    Attributes:
        pid: In the pid namespace of the agent's /proc.
        start_time_ns: Since boot, from /proc/PID/stat, with the resolution of the clock tick (10 ms).
    """

    pid: int
    start_time_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What one process says about itself. Text that is not UTF-8 comes with surrogates.

    Attributes:
        id: Which process.
        ppid: Its parent when it was read.
        executable: Path of its program as the process sees it; empty for a kernel thread.
        deleted: Whether that path has been unlinked or replaced since.
        cmdline: Its arguments, as they stand in its memory: some programs write a title there.
        environ: Its environment at exec, as far as it is still there. Never printed: it holds secrets.
        environ_overwritten: Whether something else was written over it.
        cgroup: Path of its control group; see :func:`coral.procfs.cgroup.telling_path`.
        comm: Name of its main thread.
        is_kernel_thread: Whether it has no user space.
        uid: Its effective user.
        mark: Which exec it comes from.
    """

    id: ProcessId
    ppid: int
    executable: str
    deleted: bool
    cmdline: tuple[str, ...]
    environ: Mapping[str, str] = field(repr=False)
    environ_overwritten: bool = False
    cgroup: str = ""
    comm: str = ""
    is_kernel_thread: bool = False
    uid: int = 0
    mark: ExecMark = ExecMark(start_code=0, start_stack=0)


def process_id(pid: int, *, proc: Path = PROC) -> ProcessId:
    """The identity of the process that has this pid now.

    Raises:
        ProcessGone: Nothing of it runs.
    """
    return _id_of(_living_stat(pid, proc))


def is_alive(id: ProcessId, *, proc: Path = PROC) -> bool:
    """Whether this very process still runs; a zombie does not."""
    try:
        return process_id(id.pid, proc=proc) == id
    except ProcessGone:
        return False


def read_environ(pid: int, *, proc: Path = PROC) -> tuple[ProcessId, ExecMark, Environ]:
    """The environment alone, and what it belongs to: half the cost of :func:`read_process`, for the moment after an exec.

    Raises:
        ProcessGone: It vanished.
        PermissionDenied: It may not be read.
        Unavailable: It replaces its program faster than it can be read.
    """

    def read(stat: Stat) -> tuple[ProcessId, ExecMark, Environ]:
        return _id_of(stat), stat.mark, parse_environ(read_file(pid, "environ", proc=proc))

    return _read_whole(pid, read, proc)


def read_process(pid: int, *, proc: Path = PROC) -> Process:
    """Reads one process. All of the result belongs to one process and one program: it is read again after an exec.

    Raises:
        ProcessGone: It vanished, at whatever point, or its pid was given to another process in between.
        PermissionDenied: It may not be read.
        Unavailable: It replaces its program faster than it can be read.
    """
    return _read_whole(pid, lambda stat: _read_once(stat, proc), proc)


def _read_whole(pid: int, read: Callable[[Stat], _T], proc: Path) -> _T:
    """What ``read`` returns, read again when the process called exec before, while or after that."""
    before = _living_stat(pid, proc)
    for _ in range(_ATTEMPTS):
        if before.in_exec:
            time.sleep(_EXEC_PAUSE_S)
            found = None
        else:
            found = read(before)
        after = _living_stat(pid, proc)
        if after.start_time_ns != before.start_time_ns:
            raise ProcessGone(pid)
        if found is not None and after.mark == before.mark:
            return found
        before = after
    raise Unavailable(f"Process {pid} replaces its program faster than it can be read.", hint="Look at it again later.")


def _read_once(stat: Stat, proc: Path) -> Process:
    """Everything but the check that nothing changed meanwhile."""
    pid = stat.pid
    try:
        uid = (proc / str(pid)).stat().st_uid
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessGone(pid) from error
    executable, deleted, cmdline, environ = "", False, b"", Environ(variables={}, overwritten=False)
    if not stat.is_kernel_thread:
        task = memory_task(pid, proc=proc, stat=stat)
        source = "" if task == pid else f"task/{task}/"
        link = read_link(pid, f"{source}exe", proc=proc)
        executable, deleted = link.removesuffix(_DELETED), link.endswith(_DELETED)
        cmdline = read_file(pid, f"{source}cmdline", proc=proc)
        environ = parse_environ(read_file(pid, f"{source}environ", proc=proc))
    return Process(
        id=_id_of(stat),
        ppid=stat.ppid,
        executable=executable,
        deleted=deleted,
        cmdline=_arguments(cmdline),
        environ=environ.variables,
        environ_overwritten=environ.overwritten,
        cgroup=_cgroup(pid, proc),
        comm=stat.comm,
        is_kernel_thread=stat.is_kernel_thread,
        uid=uid,
        mark=stat.mark,
    )


def _living_stat(pid: int, proc: Path) -> Stat:
    stat = read_stat(pid, proc=proc)
    if stat.is_dead:
        raise ProcessGone(pid)
    return stat


def _id_of(stat: Stat) -> ProcessId:
    return ProcessId(pid=stat.pid, start_time_ns=stat.start_time_ns)


def _arguments(data: bytes) -> tuple[str, ...]:
    """The arguments in /proc/PID/cmdline, without the NULs that a title leaves behind it."""
    stripped = data.rstrip(b"\0")
    if not stripped:
        return ()
    # One NUL ends the last argument; more of them are empty arguments or padding, which cannot be told apart.
    return tuple(os.fsdecode(part) for part in stripped.split(b"\0"))


def _cgroup(pid: int, proc: Path) -> str:
    try:
        return telling_path(os.fsdecode(read_file(pid, "cgroup", proc=proc)))
    except ProcessGone:
        # A kernel without control groups has no such file; whether the process is gone is checked after everything.
        return ""
