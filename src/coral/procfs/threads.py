"""Which thread shows the memory of a process: its main thread, unless that has ended while others go on, pthread_exit(3)."""

from __future__ import annotations

from pathlib import Path

from coral.procfs.files import PROC, ProcessGone
from coral.procfs.stat import Stat, read_stat


def memory_task(pid: int, *, proc: Path = PROC, stat: Stat | None = None) -> int:
    """The thread below whose /proc directory ``exe``, ``maps``, ``mem``, ``map_files`` and the like work.

    A thread that has ended has given the memory back, and what is read through it is empty or missing. Every thread has a
    directory of its own in /proc, which the listing of /proc does not show (proc(5), /proc/tid).

    Args:
        pid: Of the process.
        proc: Where proc is mounted.
        stat: Of the process, when it has just been read.

    Raises:
        ProcessGone: None of its threads runs.
    """
    known = read_stat(pid, proc=proc) if stat is None else stat
    if known.state not in "ZXx":
        return pid
    try:
        threads = [int(entry.name) for entry in (proc / str(pid) / "task").iterdir()]
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessGone(pid) from error
    for thread in threads:
        if thread != pid and _runs(pid, thread, proc):
            return thread
    raise ProcessGone(pid)


def _runs(pid: int, thread: int, proc: Path) -> bool:
    try:
        return read_stat(thread, proc=proc / str(pid) / "task").state not in "ZXx"
    except ProcessGone:
        return False
