"""A steady rate of calls from one C program, end to end into the database: is anything lost, and what does Coral cost?"""

from __future__ import annotations

import json
import os
import subprocess

from bench.stack import compiled, dev


def run(*, rate: int, seconds: int) -> bool:
    """Prints the figures of one run; whether nothing was lost.

    Args:
        rate: Calls per second.
        seconds: For how long.
    """
    with dev() as coral:
        service = f"bench-rate-{os.getpid()}"
        program = subprocess.Popen(
            [compiled("rate"), str(rate), str(seconds + 4)],
            stdout=subprocess.PIPE,
            env=os.environ | {"CORAL_SERVICE": service},
        )
        before = coral.cpu_s()
        session = coral.coral("debug", "attach", service, "-f", "work", "-d", f"{seconds}s")
        after, memory = coral.cpu_s(), coral.memory_bytes()
        calls = json.loads(program.communicate()[0])["calls"]
    ledger, statistics = session["ledger"], session["statistics"]
    lost = sum(ledger[name] for name in ("ring_lost", "queue_dropped", "rate_limited"))
    used = {role: after[role] - before[role] for role in after}
    total = sum(used.values())
    print(f"sustained: {rate:,} calls/s for {seconds} s from C, every call stored")
    print(f"  calls      {ledger['entered']:,} entered of {calls:,} made, {ledger['stored']:,} stored, {lost:,} lost")
    print(f"  balanced   {ledger['balanced']}")
    print(f"  durations  p50 {statistics['duration_ns']['p50']:,} ns, p99 {statistics['duration_ns']['p99']:,} ns")
    print(f"  CPU        {total / seconds:.2f} of a core", end="")
    print(" = " + " + ".join(f"{role} {cpu / seconds:.2f}" for role, cpu in sorted(used.items())), end="")
    print(f"; {total / ledger['stored'] * 1e6:.1f} us per stored event")
    print("  memory     " + ", ".join(f"{role} {size >> 20} MiB" for role, size in sorted(memory.items())))
    return lost == 0 and ledger["balanced"] is True
