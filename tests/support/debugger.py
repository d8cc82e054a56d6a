"""gdb on a running process, told what to do line by line."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

_PROMPT = b"(gdb) "


class Gdb:
    """A gdb that is attached to a process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._rest = b""

    def do(self, command: str) -> str:
        """Gives a command, and returns what was printed until the next prompt."""
        self.tell(command)
        return self.until(_PROMPT)

    def tell(self, command: str) -> None:
        """Gives a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()

    def until(self, text: bytes, timeout_s: float = 60) -> str:
        """What is printed until ``text`` is."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        while text not in self._rest:
            if not select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"gdb has not printed {text!r} after {timeout_s} s, but {self._rest!r}")
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise EOFError(f"gdb ended with {self._process.wait()}: {self._rest!r}")
            self._rest += chunk
        before, self._rest = self._rest.split(text, 1)
        return before.decode(errors="replace")


@contextmanager
def debugger_of(pid: int) -> Iterator[Gdb]:
    """gdb, attached to a process that it has stopped; it is gone at the end.

    Args:
        pid: Of the process.
    """
    process = subprocess.Popen(
        ["gdb", "-q", "-nx", "-iex", "set auto-solib-add off", "-iex", "set debuginfod enabled off", "-p", str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    gdb = Gdb(process)
    try:
        gdb.until(_PROMPT)
        yield gdb
    finally:
        if process.stdin is not None:
            process.stdin.close()  # at the end of its input it detaches and ends
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
