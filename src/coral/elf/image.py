"""Which file on disk it is, and what it says about itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageKey:
    """Names one content of one file for as long as nobody restores its times; cheap, unlike a hash.

    The inode alone is not enough: overwriting a binary in place keeps it, and ``mtime`` can be set back, ``ctime`` cannot.

    Attributes:
        device: Of the file system.
        inode: Of the file.
        size: In bytes.
        mtime_ns: When its content was changed, as the file says.
        ctime_ns: When its inode was changed, as the kernel says.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of_fd(cls, fd: int) -> Self:
        """The key of an open file.

        Raises:
            OSError: It cannot be examined.
        """
        stat = os.fstat(fd)
        return cls(
            device=stat.st_dev,
            inode=stat.st_ino,
            size=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            ctime_ns=stat.st_ctime_ns,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """A file that was opened by one process to be read by another, which is given the descriptor.

    Attributes:
        fd: Open for reading; whoever opened it closes it.
        key: Its identity at that moment.
        path: For messages.
        linked: Whether it was found by the name in an image's .gnu_debuglink, so that the CRC there must be its own.
    """

    fd: int
    key: ImageKey
    path: str
    linked: bool = False

    @classmethod
    def of(cls, fd: int, path: str, *, linked: bool = False) -> Self:
        """An open file as it is now.

        Raises:
            OSError: It cannot be examined.
        """
        return cls(fd=fd, key=ImageKey.of_fd(fd), path=path, linked=linked)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """What an image says about itself.

    Attributes:
        image_id: ``build-id:HEX``, or ``sha256:HEX`` of the whole file when it carries no GNU build id.
        build_id: The GNU build id in hex; empty when there is none (Go without ``-B``, ``zig cc``).
        machine: ``x86_64``, or the name of another one as ``uname -m`` has it.
        language: ``go`` when the Go linker made it, ``rust`` when rustc took part, ``cpp`` when C++ did, else ``c``.
        go_version: Such as ``go1.27.3``; empty when the file does not say.
        pie: Whether it can be loaded anywhere (ET_DYN: position independent programs and shared libraries).
        stripped: Whether it has no .symtab, so that the names of its static functions are elsewhere, if anywhere.
        debug_link: The base name of the file that holds what was stripped, from .gnu_debuglink; empty when it names none.
    """

    image_id: str
    build_id: str
    machine: str
    language: str
    go_version: str
    pie: bool
    stripped: bool = False
    debug_link: str = ""
