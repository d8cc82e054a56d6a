"""Who traces a process with ptrace(2): a debugger writes breakpoints into its code, strace does not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from coral.model.errors import PermissionDenied
from coral.procfs.files import PROC, ProcessGone, read_file

_TRACER = re.compile(rb"^TracerPid:\s*(\d+)$", re.MULTILINE)


def tracer_of(pid: int, *, proc: Path = PROC) -> int:
    """The process that traces it; 0 when none does.

    Raises:
        ProcessGone: It vanished.
    """
    found = _TRACER.search(read_file(pid, "status", proc=proc))
    return int(found[1]) if found else 0


def traced_processes(only: int = 0, *, proc: Path = PROC) -> Iterator[tuple[int, int]]:
    """The processes that are traced, as (pid, pid of the tracer). 20 µs for each process that is looked at.

    Args:
        only: The pid of the one that is looked at; 0 for all of the host.
        proc: Where proc is mounted.
    """
    pids = [only] if only else [int(folder.name) for folder in proc.iterdir() if folder.name.isdecimal()]
    for pid in pids:
        try:
            tracer = tracer_of(pid, proc=proc)
        except (ProcessGone, PermissionDenied):
            continue
        if tracer:
            yield pid, tracer
