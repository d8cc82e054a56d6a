"""How long a program that starts while its service is debugged runs unseen: from its first moment to its first event."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from bench.stack import Dev, compiled, dev

_LIVES_MS = 2000
_MEDIAN_MS = 300.0
_WORST_MS = 1000.0


def run(*, times: int) -> bool:
    """Prints the figures; whether the median is under 300 ms and the worst under a second.

    Args:
        times: How many programs are started, of each kind.
    """
    with dev() as coral, tempfile.TemporaryDirectory(prefix="coral-bench-") as folder:
        service = f"bench-new-{os.getpid()}"
        first = subprocess.Popen(
            [compiled("started"), "600000"], stdout=subprocess.DEVNULL, env=os.environ | {"CORAL_SERVICE": service}
        )
        try:
            time.sleep(0.5)
            session = coral.coral("debug", "attach", service, "-f", "work", "-d", "10m", "--no-wait")
            same = _starts(service, [compiled("started")] * times)
            copies = [Path(shutil.copy2(compiled("started"), Path(folder) / f"release-{number}")) for number in range(times)]
            changed = _starts(service, copies)
            time.sleep(1)
            seen = _first_events(coral, session["session_id"])
            coral.coral("debug", "session", "stop", session["session_id"])
        finally:
            first.kill()
            first.wait()
    print(f"new instance: from the first moment of a program to its first event; load {os.getloadavg()[0]:.1f}")
    held = [_report("same file", same, seen), _report("another file", changed, seen)]
    return all(held)


def _starts(service: str, programs: list[Path]) -> dict[int, int]:
    """Starts programs one after the other; returns when each began, by pid, in wall-clock ns."""
    began, running = {}, []
    for program in programs:
        process = subprocess.Popen(
            [program, str(_LIVES_MS)], stdout=subprocess.PIPE, env=os.environ | {"CORAL_SERVICE": service}
        )
        assert process.stdout is not None
        began[process.pid] = int(process.stdout.readline())
        running.append(process)
        time.sleep(0.4)
    for process in running:
        process.communicate()
    return began


def _first_events(coral: Dev, session_id: str) -> dict[int, int]:
    """When the first event of each process was, in wall-clock ns."""
    statement = f"SELECT pid, min(timestamp_ns) AS first FROM uprobe_events WHERE session_id = '{session_id}' GROUP BY pid"
    return {row["pid"]: row["first"] for row in coral.coral("db", "query", statement)["items"]}


def _report(name: str, began: dict[int, int], seen: dict[int, int]) -> bool:
    """Prints the figures of one kind; whether they hold."""
    taken = sorted((seen[pid] - at) / 1e6 for pid, at in began.items() if pid in seen)
    never = len(began) - len(taken)
    if not taken:
        print(f"  {name:13} none of {len(began)} was seen")
        return False
    median, worst = statistics.median(taken), taken[-1]
    p95 = taken[min(len(taken) - 1, round(0.95 * len(taken)))]
    print(
        f"  {name:13} median {median:.0f} ms, p95 {p95:.0f} ms, worst {worst:.0f} ms of {len(taken)}"
        + (f"; {never} never seen" if never else "")
    )
    return never == 0 and median < _MEDIAN_MS and worst < _WORST_MS
