"""Real processes that do on command what server programs do to themselves; see actor.c."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("actor.c")


def build_actor(path: Path) -> Path:
    """Compiles actor.c to ``path``."""
    subprocess.run(["cc", "-O1", "-pthread", "-o", path, SOURCE], check=True)
    return path


class Actor:
    """One such process, ended together with all that it forked when the ``with`` block is left."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        executable: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Starts it and waits until its program runs. ``env`` is all of its environment."""
        self._process = subprocess.Popen(
            argv,
            executable=executable,
            env=env or {},
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.pid = self.answer()

    def __enter__(self) -> Actor:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def do(self, letter: str) -> int:
        """Gives a command and returns the answer, a pid."""
        self.tell(letter)
        return self.answer()

    def tell(self, letter: str) -> None:
        """Gives a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(letter.encode())
        self._process.stdin.flush()

    def answer(self) -> int:
        """Waits for an answer."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def wait(self) -> int:
        """Waits until the process has ended, and reaps it."""
        return self._process.wait(timeout=10)

    def wait_for_zombie(self) -> None:
        """Waits until the process has ended, and leaves it unreaped."""
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
