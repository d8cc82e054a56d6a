"""Cases of one kind for so many seconds, in processes that may die of them, and what came of it."""

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
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path

from fuzz.campaign import Report, peak_bytes

Case = Callable[[random.Random], str]
"""Does one thing with what the source of randomness gives; says in a word what came of it. An AssertionError is a defect."""

CASE_S = 10.0
"""Of CPU time, for one case."""
GROWTH_BYTES = 512 << 20
"""What a process may hold beyond what it had at first."""
_EVERY = 50


def run(case: Case, *, seed: int, seconds: float, jobs: int = 2) -> Report:
    """Runs cases until the time is up; a process that dies is a defect, and is replaced.

    Args:
        case: What to do; it is called in new processes, so a function of a module.
        seed: From which every case can be made again: case N gets ``random.Random(f"{seed}:{N}")``.
        seconds: For how long.
        jobs: In how many processes.
    """
    report = Report(seed=seed)
    start = time.monotonic()
    until = start + seconds
    context = multiprocessing.get_context("spawn")  # after gRPC has started here, what is forked may never get going
    running: dict[Connection, tuple[multiprocessing.process.BaseProcess, int]] = {}

    def spawn(first: int) -> None:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(theirs, case, seed, first, jobs, until - time.monotonic()), daemon=True)
        process.start()
        theirs.close()
        running[ours] = (process, first)

    for job in range(jobs):
        spawn(job)
    while running:
        ready = wait(list(running), timeout=seconds + 60)
        if not ready:
            raise RuntimeError("no process came to an end")
        for connection in ready:
            assert isinstance(connection, Connection)
            process, first = running[connection]
            try:
                result = json.loads(connection.recv_bytes())
            except EOFError:
                del running[connection]
                process.join()
                if process.exitcode:
                    why = "over its time" if process.exitcode == -signal.SIGPROF else f"died with status {process.exitcode}"
                    report.defects.append(f"case {first} or up to {_EVERY * jobs} later: {why}")
                    if time.monotonic() < until:
                        spawn(first + _EVERY * jobs)
                continue
            running[connection] = (process, result["next"])
            report.cases += result["cases"]
            report.outcomes.update(Counter(result["outcomes"]))
            report.defects += result["defects"]
            report.memory_bytes = max(report.memory_bytes, result["memory_bytes"])
            if result["worst_s"] > report.worst_s:
                report.worst_s, report.worst = result["worst_s"], result["worst"]
    report.duration_s = time.monotonic() - start
    return report


def _work(results: Connection, case: Case, seed: int, first: int, step: int, seconds: float) -> None:
    """A process of a run; its time begins when it has got going."""
    until = time.monotonic() + seconds
    limit = peak_bytes() + GROWTH_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    number = first
    while time.monotonic() < until:
        outcomes: Counter[str] = Counter()
        defects: list[str] = []
        worst_s, worst, cases = 0.0, "", 0
        for _ in range(_EVERY):
            signal.setitimer(signal.ITIMER_PROF, CASE_S)
            begun = time.process_time()
            try:
                outcomes[case(random.Random(f"{seed}:{number}"))] += 1
            except Exception as error:  # noqa: BLE001 - finding what nobody thought of is the purpose
                last = traceback.extract_tb(error.__traceback__)[-1]
                outcomes["defect"] += 1
                what = f"{type(error).__name__}: {str(error)[:300]} at {Path(last.filename).name}:{last.lineno}"
                defects.append(f"case {number}: {what}")
            spent_s = time.process_time() - begun
            if spent_s > worst_s:
                worst_s, worst = spent_s, f"case {number}"
            number += step
            cases += 1
            if time.monotonic() >= until:
                break
        signal.setitimer(signal.ITIMER_PROF, 0)
        result = {
            "next": number, "cases": cases, "outcomes": outcomes, "defects": defects[:20],
            "worst_s": worst_s, "worst": worst, "memory_bytes": peak_bytes(),
        }  # fmt: skip
        results.send_bytes(json.dumps(result).encode())
    os._exit(0)
