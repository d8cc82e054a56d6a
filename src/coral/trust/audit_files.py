"""Where the JSON Lines copy of the audit log lies: the file that is written, and the full ones before it."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from coral.trust.chain import MAX_LINE_BYTES

CURRENT_FILE = "audit.jsonl"
_READ_BYTES = 1 << 20
_FULL = re.compile(r"audit-(\d{16})\.jsonl")


def full_name(first: int) -> str:
    """The name of a full file, by the sequence of its first record."""
    return f"audit-{first:016}.jsonl"


def full_files(folder: Path) -> list[tuple[int, Path]]:
    """The full files of a folder with the sequence that each begins with, oldest first."""
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _FULL.fullmatch(path.name))]
    return sorted(found)


def files(path: Path) -> list[Path]:
    """The files that make up a copy, oldest first, when ``path`` is the one that is written; any other stands for itself."""
    if path.name != CURRENT_FILE:
        return [path]
    return [*(full for _, full in full_files(path.parent)), path]


class Snapshot:
    """The files of a copy as they are now, open: what is appended or put aside later does not change what is read."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Opens them; one that is not there has no lines.

        Raises:
            OSError: One cannot be opened, or is no regular file.
        """
        self._files: list[tuple[int, int]] = []  # descriptor and size
        try:
            for path in paths:
                try:
                    # Not blocking: opening a FIFO would wait for a writer.
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                except FileNotFoundError:
                    continue
                found = os.fstat(fd)
                self._files.append((fd, found.st_size))
                if not stat.S_ISREG(found.st_mode):  # a device or a pipe has size 0, and would pass for an empty file
                    raise OSError(errno.EINVAL, "It is not a regular file", str(path))
        except OSError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # One that was opened for a caller who has gone meanwhile is handed to nobody.
        self.close()

    def close(self) -> None:
        """Closes the files."""
        while self._files:
            os.close(self._files.pop()[0])

    def lines(self) -> Iterator[bytes]:
        """All lines, without their line breaks. Of a line that is too long to be a record there is a part, which is none.

        Raises:
            OSError: A file cannot be read.
        """
        for fd, size in self._files:
            yield from _lines(fd, size)


def _lines(fd: int, size: int) -> Iterator[bytes]:
    rest, at = b"", 0
    while at < size:
        part = os.pread(fd, min(_READ_BYTES, size - at), at)
        if not part:
            break
        at += len(part)
        *whole, rest = (rest + part).split(b"\n")
        yield from whole
        rest = rest[: MAX_LINE_BYTES + 1]
    if rest:
        yield rest


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of one file.

    Raises:
        FileNotFoundError: It is not there.
        OSError: It cannot be read.
    """
    path.stat()
    with Snapshot([path]) as snapshot:
        yield from snapshot.lines()
