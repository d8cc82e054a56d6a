"""The kernel's OOM killer, set on one process: a memory cgroup that something else fills."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LIMIT_BYTES = 48 << 20
_HOG = "import sys; sys.stdin.readline(); data = bytearray(256 << 20); sys.stdin.readline()"
_KILLED_S = 20.0


def oom_kill(pid: int) -> float:
    """Has the kernel kill a process for want of memory; returns once it has, with the seconds that took.

    The process is moved into a cgroup of 48 MiB and made the first choice; another process there, which is in the cgroup from
    the start, takes more than there is. Which one the kernel kills goes by oom_score_adj (mm/oom_kill.c: oom_badness).

    Raises:
        RuntimeError: It was not killed.
    """
    with _cgroup() as folder:
        hog = subprocess.Popen([sys.executable, "-c", _HOG], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        try:
            (folder / "cgroup.procs").write_text(str(hog.pid))
            (folder / "cgroup.procs").write_text(str(pid))
            Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
            began = time.monotonic()
            assert hog.stdin is not None
            hog.stdin.write(b"\n")
            hog.stdin.flush()
            while not _dead(pid):
                if time.monotonic() - began > _KILLED_S:
                    raise RuntimeError(f"the kernel has not killed {pid} within {_KILLED_S} s")
                time.sleep(0.01)
            return time.monotonic() - began
        finally:
            hog.kill()
            hog.wait()
            if hog.stdin is not None:
                hog.stdin.close()


@contextmanager
def _cgroup() -> Iterator[Path]:
    """A memory cgroup with a limit, of whichever version this machine has; gone at the end, when it is empty."""
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    if first.is_dir() and (first / "memory.limit_in_bytes").exists():
        parent, limit = first, "memory.limit_in_bytes"
    else:
        parent, limit = second, "memory.max"
    folder = parent / f"coral-faults-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / limit).write_text(str(_LIMIT_BYTES))
        yield folder
    finally:
        _remove(folder, parent)


def _remove(folder: Path, parent: Path) -> None:
    """Removes a cgroup once what was killed in it is gone."""
    deadline = time.monotonic() + _KILLED_S
    while folder.exists():
        try:
            for left in (folder / "cgroup.procs").read_text().split():
                (parent / "cgroup.procs").write_text(left)
            folder.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
