"""What every benchmark needs: the programs compiled, a `coral dev` of its own, and the CPU time of its daemons."""

from __future__ import annotations

import functools
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
CORAL = Path(sys.executable).parent / "coral"
BUILD = ROOT / "build" / "bench"
_READY_S = 60


@dataclass(frozen=True, slots=True)
class Dev:
    """A running `coral dev`.

    Attributes:
        colony: HOST:PORT of its colony.
        process: The supervisor, whose children are the daemons.
    """

    colony: str
    process: psutil.Process

    def coral(self, *words: str) -> Any:
        """What a command prints with ``-o json``."""
        done = subprocess.run(
            [CORAL, "--colony", self.colony, *words, "-o", "json"], capture_output=True, text=True, check=False, timeout=900
        )
        if done.returncode not in (0, 6):
            sys.exit(f"coral {' '.join(words)} exited with {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds that each daemon, with its workers, has used so far."""
        used: dict[str, float] = {}
        for child in self.process.children():
            role = "colony" if "colony" in child.cmdline() else "agent"
            times = [part.cpu_times() for part in (child, *child.children(recursive=True))]
            used[role] = used.get(role, 0) + sum(part.user + part.system for part in times)
        return used

    def memory_bytes(self) -> dict[str, int]:
        """Resident bytes of each daemon with its workers."""
        return {
            "colony" if "colony" in child.cmdline() else "agent": sum(
                part.memory_info().rss for part in (child, *child.children(recursive=True))
            )
            for child in self.process.children()
        }


@contextmanager
def dev() -> Iterator[Dev]:
    """Starts `coral dev` on free ports with a state directory that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="coral-bench-") as state:
        command = [str(CORAL), "dev", "--state-dir", state, "--colony-port", "0", "--agent-port", "0"]
        started = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert started.stderr is not None
        try:
            yield Dev(_wait_ready(started), psutil.Process(started.pid))
        finally:
            started.terminate()
            started.communicate()


def _wait_ready(started: subprocess.Popen[bytes]) -> str:
    assert started.stderr is not None
    deadline, text = time.monotonic() + _READY_S, b""
    while time.monotonic() < deadline:
        if select.select([started.stderr], [], [], 1)[0]:
            chunk = os.read(started.stderr.fileno(), 65536)
            text += chunk
            for line in text.split(b"\n")[:-1]:
                if line.startswith(b'{"ready"'):
                    return str(json.loads(line)["colony"])
            if not chunk:
                break
    sys.exit(f"coral dev did not become ready: {text.decode()}")


@functools.cache
def compiled(name: str) -> Path:
    """A program of bench/programs, built with the system's C compiler, without endbr64."""
    BUILD.mkdir(parents=True, exist_ok=True)
    output = BUILD / name
    source = ROOT / "bench" / "programs" / f"{name}.c"
    subprocess.run(["gcc", "-O2", "-pthread", "-fcf-protection=none", "-o", output, source], check=True)
    return output
