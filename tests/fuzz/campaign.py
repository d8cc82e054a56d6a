"""Many cases in processes that may die of them, under the limits of a reader, and what came of it."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import signal
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

from coral.elf.sandbox import ADDRESS_SPACE_BYTES, MEMORY_BYTES
from fuzz import cases, seeds
from fuzz.mutate import Mutant, mutant, mutated_name
from fuzz.seeds import Seed

LIMIT_S = 20.0
"""Of CPU time: what the agent's parser gives one request; here it is for all of a case."""
_NAMES_EVERY = 10
_NAMES = 100
_LONGEST_S = 600.0


@dataclass(slots=True, kw_only=True)
class Report:
    """What came of a campaign.

    Attributes:
        seed: From which every case can be made again.
        cases: How many there were.
        duration_s: For how long.
        outcomes: Of requests, by operation and outcome.
        defects: Cases that ended in anything but an answer or a CoralError, with what that was.
        worst_s: Of the slowest request.
        clock: What that is: CPU time, or time.
        worst: Which that was.
        memory_bytes: The most that a process held during a case.
    """

    seed: int
    cases: int = 0
    duration_s: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    defects: list[str] = field(default_factory=list)
    worst_s: float = 0.0
    clock: str = "s of CPU"
    worst: str = ""
    memory_bytes: int = 0

    def lines(self) -> Iterator[str]:
        """For people."""
        rate = self.cases / self.duration_s if self.duration_s else 0
        yield f"seed {self.seed}: {self.cases:,} cases in {self.duration_s:.0f} s, {rate:.1f} cases/s"
        for outcome, count in sorted(self.outcomes.items()):
            yield f"  {count:>9,}  {outcome}"
        yield f"worst request {self.worst_s:.2f} {self.clock} ({self.worst}); most memory {self.memory_bytes >> 20} MiB"
        yield f"defects: {len(self.defects)}"
        yield from (f"  {defect}" for defect in self.defects)


def case(seed: int, number: int, images: list[Seed]) -> tuple[random.Random, Mutant]:
    """The mutant of a case, and the source of what else is random in it."""
    randomness = random.Random(f"{seed}:{number}")
    return randomness, mutant(randomness, images)


def run(images: list[Seed], *, seed: int, count: int, jobs: int, first: int = 0) -> Report:
    """Runs cases in ``jobs`` processes; one that dies is replaced and goes on with the next case."""
    report = Report(seed=seed, cases=count)
    start = time.monotonic()
    context = multiprocessing.get_context("spawn")  # a fork would have the memory of this process within its limits
    running: dict[Connection, tuple[multiprocessing.process.BaseProcess, range]] = {}

    def spawn(numbers: range) -> None:
        if numbers:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(theirs, images, seed, numbers), daemon=True)
            process.start()
            theirs.close()
            running[ours] = (process, numbers)

    for job in range(jobs):
        spawn(range(first + job, first + count, jobs))
    while running:
        ready = wait(list(running), timeout=_LONGEST_S)
        if not ready:
            raise RuntimeError("no case came to an end, not even by its limit")
        for connection in ready:
            assert isinstance(connection, Connection)
            process, numbers = running[connection]
            try:
                result = json.loads(connection.recv_bytes())
            except EOFError:
                del running[connection]
                process.join()
                if numbers:
                    _count_death(report, numbers[0], process.exitcode or 0)
                    spawn(numbers[1:])
                continue
            running[connection] = (process, numbers[1:])
            _count(report, result)
    report.duration_s = time.monotonic() - start
    return report


def _count(report: Report, result: dict[str, object]) -> None:
    report.outcomes.update(Counter(dict(result["outcomes"])))  # type: ignore[call-overload]
    report.memory_bytes = max(report.memory_bytes, int(str(result["memory_bytes"])))
    if float(str(result["worst_s"])) > report.worst_s:
        report.worst_s = float(str(result["worst_s"]))
        report.worst = f"case {result['number']}, {result['worst']}"
    if result["defect"]:
        report.outcomes["defect"] += 1
        report.defects.append(f"case {result['number']} ({result['what']}): {result['defect']}")


def _count_death(report: Report, number: int, status: int) -> None:
    reason = "over its time" if status == -signal.SIGPROF else f"died with status {status}"
    report.outcomes[reason] += 1
    report.defects.append(f"case {number}: {reason}")


def _work(results: Connection, images: list[Seed], seed: int, numbers: range) -> None:
    """A process of a campaign."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for number in numbers:
        _forget_peak()
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
        randomness, damaged = case(seed, number, images)
        tally, defect = cases.Tally(), ""
        try:
            tally = cases.run(damaged, randomness)
            if number % _NAMES_EVERY == 0:
                for _ in range(_NAMES):
                    named = cases.run_name(mutated_name(randomness, seeds.names()))
                    tally.outcomes.update(named.outcomes)
                    if named.worst_s > tally.worst_s:
                        tally.worst_s, tally.worst = named.worst_s, named.worst
        except Exception as error:  # noqa: BLE001 - finding what nobody thought of is the purpose
            last = traceback.extract_tb(error.__traceback__)[-1]
            defect = f"{type(error).__name__}: {str(error)[:200]} at {Path(last.filename).name}:{last.lineno}"
        signal.setitimer(signal.ITIMER_PROF, 0)
        result = {
            "number": number,
            "what": f"{damaged.seed.name}; {'; '.join(damaged.damage)}",
            "outcomes": tally.outcomes,
            "worst_s": tally.worst_s,
            "worst": f"{damaged.seed.name}, {tally.worst}",
            "memory_bytes": peak_bytes(),
            "defect": defect,
        }
        results.send_bytes(json.dumps(result).encode())
    os._exit(0)


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak, VmHWM


def peak_bytes(pid: int | str = "self") -> int:
    """The most memory that a process held, mapped files included."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0
