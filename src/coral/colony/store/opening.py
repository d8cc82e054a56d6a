"""Opens a database file. One that is damaged is set aside under another name, never deleted, and begun anew.

What DuckDB says of a file it cannot read comes as an ``IOException`` with a text: only those that speak of the content of the
file count as damage. A file that another process holds, that a newer version wrote, that may not be read, or whose disk is
full is left where it is.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import structlog

from coral.colony.store.schema import Migration, migrate
from coral.colony.store.trial import ends_its_reader, read_through
from coral.model.errors import FailedPrecondition

_log = structlog.get_logger(__name__)
_CONFIG: dict[str, Any] = {
    # No statement may touch a file or load code: the same instance answers `coral db query`.
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    # Each caller's thread works for itself: for the small statements here, handing them to others costs more than it gains.
    "threads": 1,
    "memory_limit": "1GB",
}
_IN_MEMORY = {**_CONFIG, "temp_directory": ""}
"""Nothing is written: DuckDB would put what does not fit into the working directory."""
_MARK = ".broken-"
_OF_CONTENT = (
    "not a valid DuckDB database file",
    "Could not read enough bytes",
    "Corrupt database file",
    "Corrupt WAL file",
    "does not match stored checksum",
)
_OF_THE_LOG = "replaying WAL"
_NOT_DAMAGE = ("No space left", "Permission denied", "Read-only file system", "Disk quota", "Input/output error")


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """A file that could not be used, and is kept for whoever wants to look into it.

    Attributes:
        file: Its name before.
        kept_as: Its name now, in the same folder.
        reason: What was wrong with it.
        at_ns: When that was seen; wall clock.
    """

    file: str
    kept_as: str
    reason: str
    at_ns: int


def open_database(path: Path | None, migrations: Sequence[Migration]) -> tuple[duckdb.DuckDBPyConnection, list[SetAside]]:
    """Opens a file, creating it if there is none, and brings its schema up to date.

    Args:
        path: The file; None for tables in memory.
        migrations: Its schema.

    Returns:
        A connection, and what had to be set aside for it: nothing, the file's write-ahead log, or the file with that.

    Raises:
        FailedPrecondition: Another process has it open, a newer Coral wrote it, or something else than its content is wrong.
    """
    if path is None:
        return _open(path, migrations), []
    aside: list[SetAside] = []
    opening = path.with_name(f".{path.name}.opening")
    if opening.exists() and (end := ends_its_reader(path)):
        aside += set_aside(path, end)
    with contextlib.suppress(OSError):  # a full disk is no reason not to open what is there
        opening.touch()
    try:
        while True:
            try:
                return _open(path, migrations), aside
            except duckdb.Error as error:
                if not is_damage(error) or len(aside) > 2:
                    raise _refusal(path, error) from None
                aside += set_aside(path, str(error))
    finally:
        with contextlib.suppress(OSError):
            opening.unlink(missing_ok=True)


def is_damage(error: duckdb.Error) -> bool:
    """Whether an error tells of content that cannot be right."""
    text = str(error)
    if any(other in text for other in _NOT_DAMAGE):
        return False
    if isinstance(error, duckdb.SerializationException | duckdb.InternalException):
        return True
    if _OF_THE_LOG in text:
        # A wrong length in it is read as memory that nobody has.
        return isinstance(error, duckdb.IOException) or "Allocation failure" in text
    return isinstance(error, duckdb.IOException) and any(part in text for part in _OF_CONTENT)


def set_aside(path: Path, reason: str) -> list[SetAside]:
    """Gives a damaged file, that nobody has open, another name; its log alone where that is what is damaged.

    Without its log the file is what it was at its last checkpoint, which is better than nothing.

    Args:
        path: The file.
        reason: What is wrong with it, as DuckDB says it.
    """
    log = path.with_name(f"{path.name}.wal")
    damaged = (log,) if _OF_THE_LOG in reason and log.exists() else (path, log)
    return [_set_aside(part, reason) for part in damaged if part.exists()]


def set_aside_files(folder: Path) -> list[Path]:
    """The files in a state directory that were set aside, oldest first."""
    return sorted(folder.glob(f"*{_MARK}*"), key=lambda path: path.name.partition(_MARK)[2])


def _open(path: Path | None, migrations: Sequence[Migration]) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(str(path), config=_CONFIG) if path else duckdb.connect(config=_IN_MEMORY)
    try:
        # Names of Python variables are no tables.
        connection.execute("SET python_enable_replacements = false")
        migrate(connection, migrations, file=str(path or "memory"))
        read_through(connection)
        connection.execute("SET lock_configuration = true")
    except BaseException:
        connection.close()
        raise
    return connection


def _set_aside(path: Path, reason: str) -> SetAside:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    kept = path.with_name(f"{path.name}{_MARK}{stamp}")
    number = 1
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.name}{_MARK}{stamp}-{number}")
    path.rename(kept)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    reason = reason.partition("\n")[0]
    _log.error("a damaged database file was set aside, and is begun anew", file=str(path), kept_as=kept.name, error=reason)
    return SetAside(file=path.name, kept_as=kept.name, reason=reason, at_ns=time.time_ns())


def _refusal(path: Path, error: duckdb.Error) -> FailedPrecondition:
    text = str(error)
    if "lock" in text:
        return FailedPrecondition(
            f"{path} is in use by another process: {_holder(text)}.",
            hint="Stop the other colony, or give this one another --state-dir.",
        )
    return FailedPrecondition(f"{path} cannot be opened: {text}.", hint="Look at the file, or give another --state-dir.")


def _holder(message: str) -> str:
    """Who holds the lock, out of DuckDB's message: ``... Conflicting lock is held in /usr/bin/python (PID 12) ...``."""
    _, found, rest = message.partition("held in ")
    return rest.partition(")")[0] + ")" if found else message
