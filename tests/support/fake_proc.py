"""A directory that looks like /proc, for contents that no real process shows on demand."""

from __future__ import annotations

import os
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def stat_line(
    pid: int,
    *,
    comm: bytes = b"app",
    state: str = "S",
    ppid: int = 1,
    flags: int = 0,
    threads: int = 1,
    start_ticks: int = 100,
    start_code: int = 4096,
    start_stack: int = 8192,
) -> bytes:
    """One line of /proc/PID/stat."""
    fields = ["0"] * 52
    fields[2], fields[3], fields[8], fields[19] = state, str(ppid), str(flags), str(threads)
    fields[21], fields[25], fields[27] = str(start_ticks), str(start_code), str(start_stack)
    return b"%d (%s) " % (pid, comm) + " ".join(fields[2:]).encode() + b"\n"


def write_process(
    directory: Path,
    pid: int,
    *,
    stat: bytes = b"",
    executable: str = "/usr/bin/app",
    cmdline: bytes = b"app\0",
    environ: bytes = b"",
    cgroup: bytes = b"0::/\n",
) -> Path:
    """Makes a directory as /proc/PID is, at ``directory``, and returns it."""
    directory.mkdir(parents=True)
    (directory / "stat").write_bytes(stat or stat_line(pid))
    (directory / "exe").symlink_to(executable)
    (directory / "cmdline").write_bytes(cmdline)
    (directory / "environ").write_bytes(environ)
    (directory / "cgroup").write_bytes(cgroup)
    return directory
