"""The simulators of a fleet, as processes that are told what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.fleet.plan import Part
from bench.stack import ROOT

_END_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What all simulators counted since they were asked last.

    Attributes:
        beats: Heartbeats that were answered.
        registrations: Registrations likewise.
        failures: Calls that failed.
        why: What the last of them said.
        taken_s: How long each heartbeat took.
        cpu_s: CPU seconds that the simulators have used in all.
        memory_bytes: That they take, together.
        emitted: Events that collectors have numbered in all.
    """

    beats: int
    registrations: int
    failures: int
    why: str
    taken_s: list[float]
    cpu_s: float
    memory_bytes: int
    emitted: int

    @classmethod
    def of(cls, answers: list[dict[str, Any]]) -> Counted:
        """The sum of what each answered."""
        names = ("beats", "registrations", "failures", "cpu_s", "memory_bytes", "emitted")
        sums = {name: sum(answer[name] for answer in answers) for name in names}
        taken = sorted(each for answer in answers for each in answer["taken_s"])
        return cls(why=next((each["why"] for each in answers if each["why"]), ""), taken_s=taken, **sums)


class Players:
    """All simulators."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes
        self._threads = ThreadPoolExecutor(len(processes))

    def tell(self, word: str) -> list[dict[str, Any]]:
        """Has each do something at the same time, and returns when all have."""
        return list(self._threads.map(lambda process: _ask(process, word), self._processes))

    def count(self, word: str = "count") -> Counted:
        """The same for what answers with counts."""
        return Counted.of(self.tell(word))


@contextmanager
def players(parts: list[Part]) -> Iterator[Players]:
    """Starts a simulator for each part; ends them."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "bench.fleet.simulator"]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
        for _ in parts
    ]
    try:
        for process, part in zip(processes, parts, strict=True):
            assert process.stdin is not None
            process.stdin.write(part.to_json() + "\n")
            process.stdin.flush()
        playing = Players(processes)
        yield playing
        playing.tell("quit")
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=_END_S)


def _ask(process: subprocess.Popen[str], word: str) -> dict[str, Any]:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(word + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        sys.exit(f"a simulator ended at {word!r} with {process.wait()}")
    answer: dict[str, Any] = json.loads(line)
    return answer
