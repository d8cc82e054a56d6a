"""Copies a database file anew, so that nothing is left in it of rows that were deleted."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import duckdb


class Copying:
    """One copy under way, which another thread may interrupt."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._interrupted = False

    def interrupt(self) -> None:
        """Has it end soon, with ``duckdb.InterruptException`` and the file as it was, if it is not too late for that."""
        with self._guard:
            self._interrupted = True
            if self._connection is not None:
                self._connection.interrupt()

    def run(self, path: Path) -> int:
        """Puts a copy of a database that nobody has open in its place; a crash leaves the one or the other.

        Returns:
            By how many bytes it is smaller.

        Raises:
            duckdb.Error: It cannot be copied, or was interrupted.
            OSError: It cannot be copied.
        """
        before = path.stat().st_size
        if path.with_name(f"{path.name}.wal").exists():
            raise OSError(f"{path} was not closed completely")
        beside = path.with_name(f".{path.name}.anew")
        beside.unlink(missing_ok=True)
        try:
            with duckdb.connect(config={"threads": 1, "memory_limit": "1GB", "temp_directory": ""}) as connection:
                self._watch(connection)
                try:
                    for name, file, mode in (("old", path, " (READ_ONLY)"), ("anew", beside, "")):
                        quoted = str(file).replace("'", "''")
                        connection.execute(f"ATTACH '{quoted}' AS {name}{mode}")
                    connection.execute("COPY FROM DATABASE old TO anew")
                finally:
                    self._watch(None)
            with beside.open("rb") as copied:
                os.fsync(copied.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return before - path.stat().st_size

    def _watch(self, connection: duckdb.DuckDBPyConnection | None) -> None:
        with self._guard:
            if connection is not None and self._interrupted:
                raise duckdb.InterruptException("interrupted before it began")
            self._connection = connection
