"""A ground-truth program that runs: started, told to go, asked for its counters, ended."""

from __future__ import annotations

import itertools
import json
import os
import select
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.build import BUILD

_ids = itertools.count(1)


def unique_service(base: str) -> str:
    """A service name that no other test of any run uses."""
    return f"{base}-{os.getpid()}-{next(_ids)}"


class Target:
    """One process of a ground-truth program. ``programs/c/truth.h`` has the protocol."""

    def __init__(self, process: subprocess.Popen[bytes], service: str) -> None:
        self.process = process
        self.service = service
        self.ready: dict[str, Any] = {}
        self._rest = b""

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    def go(self) -> None:
        """Lets it do its next step."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def line(self, timeout_s: float = 120) -> dict[str, Any]:
        """The next JSON line it prints."""
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            readable, _, _ = select.select([self.process.stdout], [], [], timeout_s)
            if not readable:
                raise TimeoutError(f"{self.service} printed nothing for {timeout_s} s")
            chunk = os.read(self.process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise EOFError(f"{self.service} ended with {self.process.wait()} instead of printing its line")
            self._rest += chunk
        line, self._rest = self._rest.split(b"\n", 1)
        value: dict[str, Any] = json.loads(line)
        return value

    def run(self, timeout_s: float = 120) -> dict[str, Any]:
        """Lets it work, and returns what it counted."""
        self.go()
        return self.line(timeout_s)

    def finish(self) -> int:
        """Lets it end, and returns its exit code."""
        self.go()
        return self.process.wait(20)

    def kill(self) -> None:
        """Ends it with SIGKILL, however far it is."""
        self.process.kill()
        self.process.wait()


@contextmanager
def running(
    program: Path, *arguments: str | int, service: str = "", env: Mapping[str, str] | None = None
) -> Iterator[Target]:
    """A program that is ready and waits; it is gone at the end.

    Args:
        program: Its executable.
        arguments: Of its command line.
        service: Value of CORAL_SERVICE; a unique one if empty.
        env: Further variables.
    """
    name = service or unique_service(program.name)
    command: Sequence[str] = [str(program), *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # What a program that was built with -pg writes at its end belongs beside the built ones, not where the tests run.
        env={**os.environ, "CORAL_SERVICE": name, "GMON_OUT_PREFIX": str(BUILD / "gmon"), **(env or {})},
    )
    target = Target(process, name)
    try:
        target.ready = target.line(20)
        yield target
    finally:
        target.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue  # what was not read goes with the process
