"""Ground-truth programs that are started in unusual ways: in namespaces, from files that are gone, by other programs."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from support import build
from support.namespaces import UNSHARE
from support.target import Target, unique_service

FROM_MEMORY = """
import os, sys
fd = os.memfd_create("from-memory", 0)
with open(sys.argv[1], "rb") as file:
    os.write(fd, file.read())
os.execve(fd, sys.argv[1:], os.environ)
"""
"""Runs a program from a file that only memory holds, memfd_create(2): what some packers and sandboxes do."""


_T = TypeVar("_T", bound="Launched")


class Launched(Target):
    """A ground-truth program that another process may have started: its pid need not be that of the command."""

    @functools.cached_property
    def pid(self) -> int:  # type: ignore[override]
        """Of the program: the last of the chain of children when it says that it is ready, as this pid namespace counts."""
        pid = self.process.pid
        while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            pid = int(children[0])
        return pid


class Living(Launched):
    """A process of ``programs/c/lives.c``, which does what it is told."""

    def do(self, command: str) -> dict[str, Any]:
        """Gives it a command, and returns its answer."""
        self.tell(command)
        return self.line()

    def tell(self, command: str) -> None:
        """Gives it a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def exit(self, code: int = 0) -> int:
        """Lets it end with a code, and returns the code with which it ended."""
        self.tell(f"exit {code}")
        return self.process.wait(20)


@contextmanager
def living(*, before: Sequence[str] = (), service: str = "", program: Path | None = None) -> Iterator[Living]:
    """A process that waits for commands.

    Args:
        before: A command that runs it.
        service: Value of CORAL_SERVICE; a unique one if empty.
        program: Its executable, where it is not to be this run's own copy.
    """
    command = [*before, program or build.c_program("lives")]
    with launched(command, service=service, kind=Living) as target:
        yield target


@contextmanager
def launched(
    command: Sequence[str | Path | int],
    *,
    service: str = "",
    env: Mapping[str, str] | None = None,
    kind: type[_T] = Launched,  # type: ignore[assignment]
) -> Iterator[_T]:
    """A command whose last process is a ground-truth program that is ready and waits; all of it is gone at the end.

    Args:
        command: What is run, in a process group of its own.
        service: Value of CORAL_SERVICE; a unique one if empty.
        env: Further variables.
        kind: What is handed out.
    """
    name = service or unique_service("launched")
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "CORAL_SERVICE": name, **(env or {})},
    )
    target = kind(process, name)
    try:
        target.ready = target.line(20)
        assert target.pid
        yield target
    finally:
        if process.stdin is not None:
            try:
                process.stdin.close()  # ends the program, which no signal to the launcher might reach
            except BrokenPipeError:
                process.poll()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            target.kill()
        if process.stdout is not None:
            process.stdout.close()


def from_memory(program: Path, *arguments: str | int) -> list[str]:
    """The command that runs a program from a memfd."""
    return [sys.executable, "-c", FROM_MEMORY, str(program), *map(str, arguments)]


def in_overlay(folder: Path, lower: Path, program: Path, *arguments: str | int) -> list[str]:
    """The command that runs a static program as a container does: its own namespaces, an overlay as its root.

    Args:
        folder: For the upper layer and the mount, made here; one for each container.
        lower: The image, shared by containers.
        program: Inside of the image, as an absolute path.
        arguments: Of the program.
    """
    for name in ("upper", "work", "root"):
        (folder / name).mkdir(parents=True)
    options = f"lowerdir={lower},upperdir={folder}/upper,workdir={folder}/work"
    script = f'mount -t overlay overlay -o {options} {folder}/root && exec chroot {folder}/root "$@"'
    namespaces = [*UNSHARE, "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc"]
    return [*namespaces, "sh", "-c", script, "sh", str(program), *map(str, arguments)]
