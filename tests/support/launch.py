"""Ground-truth programs that are started in unusual ways: in namespaces, from files that are gone, by other programs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.target import Target, unique_service

FROM_MEMORY = """
import os, sys
fd = os.memfd_create("from-memory", 0)
with open(sys.argv[1], "rb") as file:
    os.write(fd, file.read())
os.execve(fd, sys.argv[1:], os.environ)
"""
"""Runs a program from a file that only memory holds, memfd_create(2): what some packers and sandboxes do."""


class Launched(Target):
    """A ground-truth program that another process started: its pid is not that of the command."""

    @property
    def pid(self) -> int:
        """Of the program: the last of the chain of children, as this pid namespace counts."""
        pid = self.process.pid
        while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            pid = int(children[0])
        return pid


@contextmanager
def launched(
    command: Sequence[str | Path | int], *, service: str = "", env: Mapping[str, str] | None = None
) -> Iterator[Launched]:
    """A command whose last process is a ground-truth program that is ready and waits; all of it is gone at the end.

    Args:
        command: What is run, in a process group of its own.
        service: Value of CORAL_SERVICE; a unique one if empty.
        env: Further variables.
    """
    name = service or unique_service("launched")
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "CORAL_SERVICE": name, **(env or {})},
    )
    target = Launched(process, name)
    try:
        target.ready = target.line(20)
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
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc"]
    return [*namespaces, "sh", "-c", script, "sh", str(program), *map(str, arguments)]
