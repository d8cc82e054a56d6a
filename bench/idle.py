"""What colony and agent cost while nothing is debugged, with many processes on the host."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.daemons import Pair, insecure, secured

PROCESSES = 500
_LIMIT_BYTES = {"agent": 180 << 20, "colony": 220 << 20}
_LIMIT_SHARE = 0.01
_SETTLE_S = 15.0


@dataclass(frozen=True, slots=True)
class _Reading:
    """One daemon with its workers. CPU time by thread, as (pid, tid, name), in ns."""

    rss_bytes: int
    pss_bytes: int
    cpu_ns: dict[tuple[int, int, str], int]


def run(*, seconds: float, processes: int = PROCESSES) -> bool:
    """Prints memory and CPU share of both daemons, without credentials and with them.

    Args:
        seconds: For how long CPU time is counted, of each pair.
        processes: How many sleeping processes the host has besides.

    Returns:
        Whether both stay within what is promised.
    """
    good = True
    with _sleepers(processes):
        for name, pair in (("insecure", insecure), ("secured", secured)):
            good &= _of(name, pair, seconds=seconds, processes=processes)
    return good


def _of(name: str, pair: Callable[[Path], AbstractContextManager[Pair]], *, seconds: float, processes: int) -> bool:
    known = {child.pid for child in psutil.Process().children()}
    good = True
    with tempfile.TemporaryDirectory(prefix="coral-bench-") as folder, pair(Path(folder)):
        daemons = {
            "colony" if "colony" in child.cmdline() else "agent": child
            for child in psutil.Process().children()
            if child.pid not in known
        }
        time.sleep(_SETTLE_S)
        before = {role: _read(process) for role, process in daemons.items()}
        begun, execs = time.monotonic(), _forks()
        time.sleep(seconds)
        spent_s, forks = time.monotonic() - begun, _forks() - execs
        print(f"idle, {name}, {processes} processes more, {spent_s:.0f} s, {forks / spent_s:.1f} forks a second of others:")
        for role, process in daemons.items():
            after = _read(process)
            threads = {
                thread: after.cpu_ns[thread] - before[role].cpu_ns.get(thread, 0)
                for thread in sorted(after.cpu_ns, key=lambda each: before[role].cpu_ns.get(each, 0) - after.cpu_ns[each])
            }
            share = sum(threads.values()) / 1e9 / spent_s
            most = ", ".join(f"{thread[2]} {ns / 1e7 / spent_s:.2f} %" for thread, ns in list(threads.items())[:4])
            print(
                f"  {role:6} with workers: PSS {after.pss_bytes / 2**20:.0f} MiB, RSS {after.rss_bytes / 2**20:.0f} MiB, "
                f"{share:.2%} of a core ({most})"
            )
            good &= after.pss_bytes < _LIMIT_BYTES[role] and share < _LIMIT_SHARE
    return good


def _read(process: psutil.Process) -> _Reading:
    family = (process, *process.children(recursive=True))
    rss = pss = 0
    cpu_ns: dict[tuple[int, int, str], int] = {}
    for each in family:
        proc = Path(f"/proc/{each.pid}")
        for line in (proc / "smaps_rollup").read_text().splitlines():
            key, _, value = line.partition(":")
            if key in ("Rss", "Pss"):
                size = int(value.split()[0]) << 10
                rss, pss = (rss + size, pss) if key == "Rss" else (rss, pss + size)
        for task in (proc / "task").iterdir():
            # The first field of schedstat is the time on a CPU in ns (Documentation/scheduler/sched-stats.rst).
            taken_ns = int((task / "schedstat").read_text().split()[0])
            cpu_ns[each.pid, int(task.name), (task / "comm").read_text().strip()] = taken_ns
    return _Reading(rss, pss, cpu_ns)


def _forks() -> int:
    """How many processes and threads were started since boot (proc(5), "processes" of /proc/stat)."""
    return next(int(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line.startswith("processes"))


@contextmanager
def _sleepers(count: int) -> Iterator[None]:
    started = [subprocess.Popen(["sleep", "86400"], stdin=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()
