"""What `--help` costs, against what importing click alone costs."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

from bench.stack import CORAL

_COMMANDS = (
    ["--help"],
    ["debug", "attach", "--help"],
    ["dev", "--help"],
    ["colony", "start", "--help"],
    ["db", "query", "--help"],
)


def run(*, times: int) -> bool:
    """Prints CPU time of each command as a ratio, in turn with the peer; whether all stay within 1.5.

    Args:
        times: How often each is run.
    """
    print("help: CPU time against `python -c 'import click'`, median of pairs")
    good = True
    for words in _COMMANDS:
        ratios = [_cpu_s([str(CORAL), *words]) / _cpu_s([sys.executable, "-c", "import click"]) for _ in range(times)]
        ratio = statistics.median(ratios)
        good &= ratio <= 1.5
        print(f"  coral {' '.join(words):24} {ratio:.2f}")
    return good


def _cpu_s(command: list[str]) -> float:
    # Not os.times(): that counts in ticks of 10 ms, of which such a command takes five.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
