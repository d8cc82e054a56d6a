"""Files that only their owner may read: written at once or not at all, and refused when somebody else could read them."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from coral.model.errors import FailedPrecondition, NotFound

MAX_BYTES = 1 << 20
"""Keys, certificates and lists of them are far smaller; a file that grows without end is not read."""

_OTHERS = 0o077


def private_folder(path: Path) -> Path:
    """Creates a folder with mode 0700, or accepts one that nobody else can look into.

    Args:
        path: The folder; what is above it is created too.

    Returns:
        The same path.

    Raises:
        FailedPrecondition: It cannot be created, is no folder, belongs to somebody else, or is open to others.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise FailedPrecondition(f"{path} cannot be used: {error.strerror}.", hint="Give another with --state-dir.") from None
    if not stat.S_ISDIR(found.st_mode):
        raise FailedPrecondition(f"{path} is not a folder itself.", hint="Give the folder, not a link to it.")
    _check_owner(path, found)
    if stat.S_IMODE(found.st_mode) & _OTHERS:
        raise FailedPrecondition(
            f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o}), and keys are kept in it.",
            hint=f"Close it with `chmod 700 {path}`.",
        )
    return path


def write_secret(path: Path, content: bytes) -> None:
    """Writes a file with mode 0600 in place of the one that was there; a crash leaves the old one or the new one.

    Raises:
        OSError: It cannot be written.
    """
    with _written_beside(path, content) as beside:
        beside.replace(path)


def create_secret(path: Path, content: bytes) -> None:
    """Writes a file with mode 0600 that was not there before.

    Raises:
        FileExistsError: It is there; it stays as it is.
        OSError: It cannot be written.
    """
    with _written_beside(path, content) as beside:
        os.link(beside, path)  # rename would replace what somebody else has just put there


def read_secret(path: Path) -> bytes:
    """The content of a file that nobody but this process's user (or root) can read or change.

    Raises:
        NotFound: It is not there.
        FailedPrecondition: It is no regular file, belongs to somebody else, others may read it, or it is too large.
    """
    try:
        # Not blocking: opening a FIFO would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist.") from None
    except OSError as error:
        raise FailedPrecondition(f"{path} cannot be read: {error.strerror}.", hint="It is a file of mode 0600.") from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise FailedPrecondition(f"{path} is not a regular file.", hint="Put the file itself there.")
        _check_owner(path, found)
        if stat.S_IMODE(found.st_mode) & _OTHERS:
            raise FailedPrecondition(
                f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o}); what it holds may be known to them.",
                hint=f"Close it with `chmod 600 {path}`, and replace the credential if others use this host.",
            )
        with os.fdopen(fd, "rb", closefd=False) as file:
            content = file.read(MAX_BYTES + 1)
    finally:
        os.close(fd)
    if len(content) > MAX_BYTES:
        raise FailedPrecondition(f"{path} is larger than {MAX_BYTES:,} bytes.", hint="Is it the right file?")
    return content


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise FailedPrecondition(
            f"{path} belongs to uid {found.st_uid}, and this process runs as uid {os.geteuid()}.",
            hint="Run it as the owner, or have root change the owner.",
        )


@contextmanager
def _written_beside(path: Path, content: bytes) -> Iterator[Path]:
    """A synced file beside ``path`` for the block to put in its place; after it, it is gone and the folder is synced."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield beside
    finally:
        with suppress(FileNotFoundError):  # renamed into place
            beside.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
