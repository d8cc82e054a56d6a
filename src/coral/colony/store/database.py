"""One DuckDB file: a writer thread that groups what waits into one transaction, readers beside it, and recovery.

A commit costs milliseconds (it is synced to disk), so writes that arrive while one runs share the next. A fatal error, such
as a full disk, invalidates the whole instance: every later statement fails until the file is opened anew, after which all
that was committed is there. The writer does that, with backoff; meanwhile reads and writes fail as Unavailable.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import structlog

from coral.colony.store.schema import Migration, migrate
from coral.model.errors import CoralError, FailedPrecondition, Unavailable

T = TypeVar("T")
Job = Callable[[duckdb.DuckDBPyConnection], T]

_log = structlog.get_logger(__name__)
_GROUP = 64
_READERS = 4
_FIRST_RETRY_S = 0.5
_LAST_RETRY_S = 30.0
_READ_TIMEOUT_S = 30.0
_REWRITE_WAITS_S = 10.0
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


@dataclass(slots=True)
class _Rewrite:
    done: Future[int] = field(default_factory=Future)


@dataclass(slots=True)
class _Write:
    job: Job[Any]
    done: Future[Any] = field(default_factory=Future)


class Database:
    """One file, open in this process alone; or tables in memory, which end with it."""

    def __init__(self, path: Path | None, migrations: Sequence[Migration]) -> None:
        """Args: ``path`` is the file, None for tables in memory."""
        self.path = path
        self.name = "memory" if path is None else path.name
        self._migrations = migrations
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._jobs: queue.SimpleQueue[_Write | _Rewrite | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._run, name=f"writer-{self.name}", daemon=True)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix=f"reader-{self.name}")
        self._guard = threading.Condition()
        self._cursors: set[duckdb.DuckDBPyConnection] = set()
        self._retry_s = _FIRST_RETRY_S
        self._retry_at = 0.0
        self._rewriting = False

    async def open(self) -> None:
        """Opens the file, creating it if there is none, and brings its schema up to date.

        Raises:
            FailedPrecondition: Another process has it open, or a newer Coral wrote it.
        """
        await asyncio.to_thread(self._connect)
        self._writer.start()

    async def close(self) -> None:
        """Runs what is queued, writes everything into the file, and closes it."""
        if self._writer.is_alive():
            self._jobs.put(None)
            await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._disconnect)
        self._readers.shutdown()

    async def write(self, job: Job[T]) -> T:
        """Runs ``job`` in a transaction, perhaps shared with others that wait; returns once it is on disk.

        A job may run twice (when another of its group fails), so it changes nothing but the database.

        Raises:
            Unavailable: The database cannot be written now; nothing was.
        """
        write = _Write(job)
        self._jobs.put(write)
        # Shielded: a caller that goes away does not make a transaction that runs undone.
        return await asyncio.shield(asyncio.wrap_future(write.done))

    def post(self, job: Job[Any], *, what: str) -> None:
        """Queues ``job`` behind what waits already, for writes that nobody waits for; a failure is logged as ``what``."""
        write = _Write(job)

        def report(done: Future[Any]) -> None:
            if error := done.exception():
                _log.error("write failed", file=self.name, what=what, error=str(error))

        write.done.add_done_callback(report)
        self._jobs.put(write)

    async def rewrite(self) -> int:
        """Copies the file anew, so that nothing is left in it of rows that were deleted; reads and writes wait for that.

        DuckDB frees the blocks of deleted rows, and leaves in them what was there.

        Returns:
            By how many bytes the file is smaller; 0 in memory.

        Raises:
            Unavailable: It cannot be done now; the file is as it was.
        """
        if self.path is None:
            return 0
        rewriting = _Rewrite()
        self._jobs.put(rewriting)
        return await asyncio.shield(asyncio.wrap_future(rewriting.done))

    async def read(self, job: Job[T], *, timeout_s: float = _READ_TIMEOUT_S) -> T:
        """Runs ``job`` on a cursor of its own, beside the writer, over what is committed.

        Raises:
            Unavailable: The database is being reopened.
            duckdb.InterruptException: It took longer than ``timeout_s``.
        """
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, job, timeout_s)

    def _read(self, job: Job[T], timeout_s: float) -> T:
        with self._guard:
            self._guard.wait_for(lambda: not self._rewriting, timeout=timeout_s)
            if self._connection is None:
                raise self._unavailable()
            cursor = self._connection.cursor()
            self._cursors.add(cursor)
        watchdog = threading.Timer(timeout_s, cursor.interrupt)
        watchdog.daemon = True
        watchdog.start()
        try:
            return job(cursor)
        except (duckdb.FatalException, duckdb.InternalException) as error:
            raise self._unavailable() from error
        finally:
            watchdog.cancel()
            cursor.close()
            with self._guard:
                self._cursors.discard(cursor)
                self._guard.notify_all()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            following = self._jobs.get()
            group: list[_Write] = []
            while isinstance(following, _Write):
                group.append(following)
                if len(group) == _GROUP or self._jobs.empty():
                    break
                following = self._jobs.get()
            if group:
                self._transact(group)
            if isinstance(following, _Rewrite):
                self._rewrite(following)
            stopping = following is None

    def _transact(self, group: list[_Write]) -> None:
        if not self._ready():
            for write in group:
                write.done.set_exception(self._unavailable())
            return
        try:
            results = self._commit(group)
        except Exception as error:  # noqa: BLE001  (the boundary of the thread: what a job raises belongs to who waits for it)
            if self._broken(error):
                self._reopen_later(error)
                for write in group:
                    write.done.set_exception(self._unavailable())
            elif len(group) == 1:
                group[0].done.set_exception(error)
            else:
                # One of them is at fault: each for itself, so that it does not take the others with it.
                for write in group:
                    self._transact([write])
            return
        self._retry_s = _FIRST_RETRY_S
        for write, result in zip(group, results, strict=True):
            write.done.set_result(result)

    def _rewrite(self, rewriting: _Rewrite) -> None:
        if not self._ready():
            rewriting.done.set_exception(self._unavailable())
            return
        assert self.path is not None, "rewrite() has looked"
        with self._guard:
            self._rewriting = True
            self._guard.wait_for(lambda: not self._cursors, timeout=_REWRITE_WAITS_S)
        try:
            self._disconnect()
            rewriting.done.set_result(copied_anew(self.path))
        except (duckdb.Error, OSError) as error:
            _log.error("the database was not copied anew", file=self.name, error=str(error))
            rewriting.done.set_exception(self._unavailable())
        finally:
            self._ready()
            with self._guard:
                self._rewriting = False
                self._guard.notify_all()

    def _commit(self, group: list[_Write]) -> list[Any]:
        connection = self._connection
        assert connection is not None, "_ready() was asked first"
        connection.begin()
        try:
            results = [write.job(connection) for write in group]
        except BaseException:
            self._rollback(connection)
            raise
        connection.commit()
        return results

    def _rollback(self, connection: duckdb.DuckDBPyConnection) -> None:
        try:
            connection.rollback()
        except duckdb.Error as error:  # what made it necessary is the error that counts
            _log.debug("rollback", file=self.name, error=str(error))

    def _broken(self, error: Exception) -> bool:
        """Whether the instance is of no use any more: it says so, or not even a trivial statement runs.

        A full disk shows as a TransactionException of the commit, which cannot be anything else here: there is one writer.
        """
        if isinstance(error, duckdb.FatalException | duckdb.IOException | duckdb.TransactionException):
            return True
        if not isinstance(error, duckdb.Error) or self._connection is None:
            return False
        try:
            self._connection.execute("SELECT count(*) FROM schema_migrations").fetchone()
        except duckdb.Error:
            return True
        return False

    def _reopen_later(self, error: Exception) -> None:
        _log.error("database closed after an error", file=self.name, error=str(error), retry_s=self._retry_s)
        self._disconnect()
        self._retry_at = time.monotonic() + self._retry_s
        self._retry_s = min(2 * self._retry_s, _LAST_RETRY_S)

    def _ready(self) -> bool:
        """Whether there is a connection; opens the file anew when it is time for that."""
        if self._connection is not None:
            return True
        if time.monotonic() < self._retry_at:
            return False
        try:
            self._connect()
        except (duckdb.Error, CoralError) as error:
            self._reopen_later(error)
            return False
        _log.info("database open again", file=self.name)
        return True

    def _connect(self) -> None:
        try:
            connection = duckdb.connect(str(self.path), config=_CONFIG) if self.path else duckdb.connect(config=_IN_MEMORY)
        except duckdb.IOException as error:
            if "lock" not in str(error):
                raise FailedPrecondition(
                    f"{self.path} cannot be opened: {error}.", hint="Look at the file, or give another --state-dir."
                ) from None
            raise FailedPrecondition(
                f"{self.path} is in use by another process: {_holder(str(error))}.",
                hint="Stop the other colony, or give this one another --state-dir.",
            ) from None
        # Names of Python variables are no tables.
        connection.execute("SET python_enable_replacements = false")
        migrate(connection, self._migrations, file=str(self.path or self.name))
        connection.execute("SET lock_configuration = true")
        with self._guard:
            self._connection = connection

    def _disconnect(self) -> None:
        """Closes the file; waits for the readers first, since an instance lives until its last cursor is closed."""
        with self._guard:
            connection, self._connection = self._connection, None
            for cursor in self._cursors:
                cursor.interrupt()
            if not self._guard.wait_for(lambda: not self._cursors, timeout=_READ_TIMEOUT_S):
                _log.warning("readers did not end", file=self.name, readers=len(self._cursors))
        if connection is not None:
            try:
                connection.close()
            except duckdb.Error as error:  # what cannot be written into the file stays in its log, which the next open reads
                _log.warning("database did not close cleanly", file=self.name, error=str(error))

    def _unavailable(self) -> Unavailable:
        return Unavailable(
            f"The colony's database {self.name} cannot be used now.",
            hint="Free disk space in its state directory if that is full; it is opened anew by itself.",
        )


def copied_anew(path: Path) -> int:
    """Puts a copy of a database that nobody has open in its place; a crash leaves the one or the other.

    Returns:
        By how many bytes it is smaller.

    Raises:
        duckdb.Error: It cannot be copied.
        OSError: Likewise.
    """
    before = path.stat().st_size
    if path.with_name(f"{path.name}.wal").exists():
        raise OSError(f"{path} was not closed completely")
    beside = path.with_name(f".{path.name}.anew")
    beside.unlink(missing_ok=True)
    try:
        with duckdb.connect(config={"threads": 1, "memory_limit": "1GB", "temp_directory": ""}) as connection:
            for name, file, mode in (("old", path, " (READ_ONLY)"), ("anew", beside, "")):
                quoted = str(file).replace("'", "''")
                connection.execute(f"ATTACH '{quoted}' AS {name}{mode}")
            connection.execute("COPY FROM DATABASE old TO anew")
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


def _holder(message: str) -> str:
    """Who holds the lock, out of DuckDB's message: ``... Conflicting lock is held in /usr/bin/python (PID 12) ...``."""
    _, found, rest = message.partition("held in ")
    return rest.partition(")")[0] + ")" if found else message
