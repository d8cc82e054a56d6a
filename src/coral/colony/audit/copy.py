"""The JSON Lines copy of the audit log: a file that is only ever appended to, synced, and put aside when it is large.

Nothing else writes to it. That it is still the file that was opened, and as long as it was left, is looked at before each
write: a copy that was moved away, replaced or cut is no copy, and what would be written to it would be lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import structlog

from coral.trust.audit_files import CURRENT_FILE, Snapshot, files, full_files, full_name, read_lines
from coral.trust.evidence import sequences

_TAIL_BYTES = 1 << 20

_log = structlog.get_logger(__name__)


class CopyLost(OSError):
    """The file is not what it was left as: somebody else has moved, replaced or changed it."""


class Copy:
    """The copy in one folder. For one thread."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        """Args: ``max_bytes`` is how large a file may become before it is put aside."""
        self.folder = folder
        self.path = folder / CURRENT_FILE
        self._max_bytes = max_bytes
        self._fd = -1
        self._first = 0
        self.bytes = 0

    def open(self) -> None:
        """Opens the file, or makes it; a last line that a crash left unfinished is cut off: nobody was answered for it.

        Raises:
            OSError: It cannot be.
        """
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._fd).st_size
        tail = os.pread(self._fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        self.bytes = size - (len(tail) - tail.rfind(b"\n") - 1)
        if self.bytes != size:
            _log.warning("unfinished line cut off", file=str(self.path), cut_bytes=size - self.bytes)
            os.ftruncate(self._fd, self.bytes)
        self.sync()
        self._sync_folder()

    def close(self) -> None:
        """Closes the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def append(self, data: bytes, *, first: int, sync: bool) -> None:
        """Adds whole lines; when it fails, the file is as it was.

        Args:
            data: The lines.
            first: The sequence of the first of them.
            sync: Whether they must be on the disk when this returns.

        Raises:
            OSError: They could not be written, or not be synced.
        """
        self.check()
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
            if sync:
                self.sync()
        except OSError:
            os.ftruncate(self._fd, self.bytes)
            raise
        if not self.bytes:  # of a file with earlier records first() reads it
            self._first = first
        self.bytes += len(data)

    def sync(self) -> None:
        """Waits until what was appended is on the disk.

        Raises:
            OSError: It may not be.
        """
        os.fdatasync(self._fd)

    def check(self) -> None:
        """Looks whether the file can be appended to.

        Raises:
            CopyLost: It is not the file that was left.
            OSError: It cannot be looked at, or its disk is full.
        """
        try:
            found = self.path.stat(follow_symlinks=False)
        except FileNotFoundError:
            raise CopyLost(f"{self.path} was moved away") from None
        mine = os.fstat(self._fd)
        if (found.st_dev, found.st_ino) != (mine.st_dev, mine.st_ino):
            raise CopyLost(f"{self.path} was replaced")
        if mine.st_size != self.bytes:
            raise CopyLost(f"{self.path} was changed: it has {mine.st_size:,} bytes, and {self.bytes:,} were written")

    def rotate(self, *, even_small: bool = False) -> None:
        """Puts the file aside if it is large, and begins another; the chain goes on in that.

        Args:
            even_small: Put aside whatever has a record.

        Raises:
            OSError: It cannot be; the file goes on.
        """
        if not self.bytes or (self.bytes < self._max_bytes and not even_small):
            return
        first = self.first()
        aside = self.folder / full_name(first)
        if aside.exists():
            raise CopyLost(f"{aside} is there already")
        self.path.rename(aside)
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            aside.rename(self.path)
            raise
        os.close(self._fd)
        self._fd, self.bytes, self._first = fd, 0, 0
        self._sync_folder()

    def first(self) -> int:
        """The sequence of the first record in the file that is written; 0 if it has none."""
        if not self._first and self.bytes:
            self._first = first_of(self.path)
        return self._first

    def remove_before(self, sequence: int) -> None:
        """Removes the full files whose records all come before a sequence.

        Raises:
            OSError: One could not be.
        """
        kept = full_files(self.folder)
        beginnings = [*(first for first, _ in kept), self.first() or sequence]
        for (_, path), next_first in zip(kept, beginnings[1:], strict=True):
            if next_first <= sequence:
                path.unlink()
        self._sync_folder()

    def snapshot(self) -> Snapshot:
        """All files as they are now, to be read by any thread; the caller closes it.

        Raises:
            OSError: One cannot be opened.
        """
        return Snapshot(files(self.path))

    def lines_from(self, sequence: int) -> Iterator[bytes]:
        """The lines of all files but those that end before a sequence, oldest first.

        Raises:
            OSError: A file cannot be read.
        """
        full = full_files(self.folder)
        earlier = [first for first, _ in full if first <= sequence]
        wanted = [path for first, path in full if first >= max(earlier, default=0)]
        with Snapshot([*wanted, self.path]) as snapshot:
            yield from snapshot.lines()

    def newest_lines(self) -> list[bytes]:
        """The last lines of the newest file that has any, newest first."""
        for path in reversed(files(self.path)):
            if found := last_lines(path):
                return found
        return []

    def _sync_folder(self) -> None:
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def first_of(path: Path) -> int:
    """The sequence that a file begins with; 0 if it has no record."""
    return next((sequence for sequence, _ in sequences(read_lines(path))), 0)


def last_lines(path: Path) -> list[bytes]:
    """The last lines of a file, newest first."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        return file.read().split(b"\n")[-2::-1]
