"""One daemon as a child process: started with a pipe on which it says that it is ready, stopped in order or by force."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from coral.model.errors import CoralError, DeadlineExceeded

STOP_S = 10.0
_LOG_TAIL_LINES = 5


class Child:
    """A running daemon.

    Attributes:
        name: What a person calls it.
        process: The process.
    """

    def __init__(self, name: str, process: Process, log: Path | None, ready: asyncio.StreamReader) -> None:
        """Takes over a process; use ``start``."""
        self.name = name
        self.process = process
        self._log = log
        self._ready = ready

    @classmethod
    async def start(cls, name: str, arguments: Sequence[str], *, environment: Mapping[str, str], log: Path | None) -> Self:
        """Starts ``coral ARGUMENTS``.

        Args:
            name: What a person calls it.
            arguments: Of the command line.
            environment: Variables to set besides those of this process.
            log: The file that takes its output; None for this process's stderr.
        """
        reading, writing = os.pipe()
        out = os.dup(sys.stderr.fileno()) if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # -P: a folder named coral in the working directory is not to be imported instead. A session of its own: Ctrl-C
            # reaches this process alone, which then stops its children in order.
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "coral", *arguments, "--ready-fd", str(writing),
                stdin=DEVNULL, stdout=out, stderr=out, pass_fds=(writing,), start_new_session=True,
                env={**os.environ, **environment},
            )  # fmt: skip
        finally:
            os.close(writing)
            os.close(out)
        ready = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(ready), os.fdopen(reading, "rb", buffering=0)
        )
        return cls(name, process, log, ready)

    async def ready(self, timeout_s: float) -> dict[str, Any]:
        """What it says of itself once it is ready.

        Raises:
            CoralError: It ended before that.
            DeadlineExceeded: It took too long.
        """
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._ready.readline()
                if not line:
                    await self.process.wait()
        except TimeoutError:
            raise DeadlineExceeded(f"The {self.name} was not ready after {timeout_s:.0f} s.", hint=self.log_tail()) from None
        if not line:
            raise self.ended()
        facts: dict[str, Any] = json.loads(line)
        return facts

    def ended(self) -> CoralError:
        """What to say of its end, which nobody asked for."""
        code = self.process.returncode
        how = (
            f"was ended by {signal.Signals(-code).name}"
            if code is not None and code < 0
            else f"ended with exit status {code}"
        )
        return CoralError(f"The {self.name} {how}.", hint=self.log_tail())

    def log_tail(self) -> str:
        """The last lines of its output, if they went to a file."""
        if self._log is None:
            return ""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(["The end of its log:", *lines[-_LOG_TAIL_LINES:]]) if lines else "It wrote no log."

    async def stop(self) -> None:
        """Asks it to end, and ends it when it has not after a while."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await self.process.wait()
        except TimeoutError:
            self.kill()
            await self.process.wait()

    def kill(self) -> None:
        """Ends it at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)
