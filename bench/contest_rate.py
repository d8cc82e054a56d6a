"""Lossless events a second, each with its duration: how fast may a C program call before the first event is lost?

Coral stores each event in its database; bpftrace prints each as a line, into nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass

from support.text import changed_text

from bench import contest
from bench.stack import Dev, compiled, dev

RATES = (20_000, 40_000, 60_000, 80_000, 120_000)
_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One rate.

    Attributes:
        calls: That the program made.
        reached: Calls a second that it made, which probes may hold below the rate.
        events: That arrived.
    """

    calls: int
    reached: float
    events: int


def run() -> bool:
    """Prints the figures; whether Coral accounted for every call, at every rate."""
    print(f"  events with durations from C, {_SECONDS} s each: calls a second reached, and events that are missing")
    good = True
    best = {"Coral": 0.0, "bpftrace": 0.0}
    with dev() as coral:
        for rate in RATES:
            own, exact = _coral(coral, rate)
            other = _bpftrace(rate)
            good &= exact
            for name, outcome in (("Coral", own), ("bpftrace", other)):
                if outcome.events == outcome.calls:
                    best[name] = max(best[name], outcome.reached)
            texts = [f"{each.reached:9,.0f} -{each.calls - each.events:,}" for each in (own, other)]
            print(f"    asked for {rate:7,}: Coral {texts[0]}; bpftrace {texts[1]}")
    print(f"    lossless up to: Coral {best['Coral']:,.0f}, bpftrace {best['bpftrace']:,.0f} events/s")
    return good


def _coral(coral: Dev, rate: int) -> tuple[Outcome, bool]:
    service = f"bench-contest-{os.getpid()}-{rate}"
    target = _target(rate, service)
    words = ("debug", "attach", service, "-f", "work", "-d", f"{_SECONDS * 4 + 60}s", "--no-wait")
    session_id = coral.coral(*words)["session_id"]
    made = json.loads(target.communicate(b"\n")[0])
    ledger = coral.coral("debug", "session", "stop", session_id)["ledger"]
    outcome = Outcome(calls=made["calls"], reached=made["calls"] / made["seconds"], events=ledger["stored"])
    return outcome, ledger["entered"] == made["calls"] and ledger["balanced"] is True


def _bpftrace(rate: int) -> Outcome:
    target = _target(rate, "")
    path = f"{compiled('rate')}:work"
    script = (
        f'uprobe:{path} {{ @b[tid] = nsecs; }} uretprobe:{path} /@b[tid]/ {{ printf("%d %d\\n", tid, nsecs - @b[tid]); }}'
    )
    with tempfile.TemporaryFile() as printed:
        started = contest.start_bpftrace(script, output=printed)
        deadline = time.monotonic() + 60
        while not changed_text(target.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        made = json.loads(target.communicate(b"\n")[0])
        time.sleep(1)  # what is in its buffers
        contest.stop_bpftrace(started)
        printed.seek(0)
        events = sum(line.count(b" ") == 1 and line[:1].isdigit() for line in printed)
    return Outcome(calls=made["calls"], reached=made["calls"] / made["seconds"], events=events)


def _target(rate: int, service: str) -> subprocess.Popen[bytes]:
    words = [str(compiled("rate")), str(rate), str(_SECONDS), "1", "wait"]
    return subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"CORAL_SERVICE": service or "bench-other"}
    )
