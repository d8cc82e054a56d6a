"""The policies that an administrator keeps in files. Who can write them decides who may do what: that is looked at."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from coral.model.errors import FailedPrecondition
from coral.model.text import printable
from coral.trust.policy.policies import DEFAULT_NAME, Source

SUFFIX = ".cedar"
MAX_FILES = 200
MAX_FILE_BYTES = 256 << 10

Signature = tuple[tuple[str, int, int, int], ...]
"""By file: its name, inode, size and time of the last change, of its rights too. Equal signatures: nothing was changed."""


def read_folder(path: Path) -> list[Source]:
    """The texts of ``*.cedar`` in a folder, by name.

    Raises:
        FailedPrecondition: The folder or a file cannot be read, is too large, or can be written by others than root and the
            user of this process.
    """
    return [read_file(path / name, guarded=True) for name in _names(path)]


def signature_of(path: Path) -> Signature:
    """What tells whether something changed in a folder.

    Raises:
        FailedPrecondition: The folder cannot be read, or is writable by others.
    """
    found = []
    for name in _names(path):
        try:
            status = (path / name).stat()
        except FileNotFoundError:
            continue  # removed since it was listed; the next look has it
        except OSError as error:
            raise _unreadable(path / name, error) from None
        found.append((name, status.st_ino, status.st_size, status.st_ctime_ns))
    return tuple(found)


def read_file(path: Path, *, guarded: bool = False) -> Source:
    """The text of one file; its source is named as the file.

    Args:
        path: Where it is; a link is followed.
        guarded: Whether it must be writable by root and this process's user alone.

    Raises:
        FailedPrecondition: It cannot be read, is too large, is no UTF-8, or may be written by others.
    """
    if guarded and path.name == DEFAULT_NAME:
        raise FailedPrecondition(
            f"{printable(str(path))} has the name of the policies that come with Coral.", hint="Give it another name."
        )
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe is not waited for
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FailedPrecondition(f"{printable(str(path))} is no regular file.", hint="Put a file there.")
            if guarded:
                _check_writers(path, status)
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        if guarded:
            raise _unreadable(path, error) from None
        raise FailedPrecondition(
            f"{printable(str(path))} cannot be read: {error.strerror or error}.", hint="Is that the right file?"
        ) from None
    if len(data) > MAX_FILE_BYTES:
        raise FailedPrecondition(
            f"{printable(str(path))} has more than {MAX_FILE_BYTES:,} bytes.", hint="Split it into several files."
        )
    try:
        return Source(name=printable(path.name), text=data.decode("utf-8"))
    except UnicodeDecodeError:
        raise FailedPrecondition(f"{printable(str(path))} is not UTF-8.", hint="Save it as UTF-8.") from None


def _names(path: Path) -> list[str]:
    try:
        _check_writers(path, path.stat())
        names = sorted(
            entry.name for entry in os.scandir(path) if entry.name.endswith(SUFFIX) and not entry.name.startswith(".")
        )
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(names) > MAX_FILES:
        raise FailedPrecondition(
            f"{printable(str(path))} has {len(names):,} files of policies.", hint=f"At most {MAX_FILES} are read."
        )
    return names


def _check_writers(path: Path, status: os.stat_result) -> None:
    """In a folder with the sticky bit others can add files, but none that would pass for root's."""
    writable = status.st_mode & 0o022 and not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX)
    if not writable and status.st_uid in (0, os.geteuid()):
        return
    raise FailedPrecondition(
        f"{printable(str(path))} can be written by others: whoever writes there decides who may do what.",
        hint=f"Make it root's or the colony's own, and no one else's to write: chmod go-w {printable(str(path))}",
    )


def _unreadable(path: Path, error: OSError) -> FailedPrecondition:
    return FailedPrecondition(
        f"{printable(str(path))} cannot be read: {error.strerror or error}.",
        hint="The setting colony.policy_dir names the folder of *.cedar files.",
    )
