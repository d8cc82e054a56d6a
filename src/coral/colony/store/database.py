"""One DuckDB file: a writer thread that groups what waits into one transaction, readers beside it, and recovery.

A commit costs milliseconds (it is synced to disk), so writes that arrive while one runs share the next. A fatal error, such
as a full disk, invalidates the whole instance: every later statement fails until the file is opened anew, after which all
that was committed is there. The writer does that, with backoff; meanwhile reads and writes fail as Unavailable.
"""

from __future__ import annotations

import asyncio
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

from coral.colony.store.copying import Copying
from coral.colony.store.opening import SetAside, is_damage, open_database, set_aside
from coral.colony.store.schema import Migration
from coral.model.errors import CoralError, FailedPrecondition, Unavailable
from coral.telemetry.timings import Timings
from coral.telemetry.vitals import Trouble

T = TypeVar("T")
Job = Callable[[duckdb.DuckDBPyConnection], T]

_log = structlog.get_logger(__name__)
_GROUP = 64
_READERS = 4
_FIRST_RETRY_S = 0.5
_LAST_RETRY_S = 30.0
_READ_TIMEOUT_S = 30.0
_REWRITE_WAITS_S = 10.0
_STUCK_S = 120.0
"""Longer than any write takes, on a slow disk too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a database is.

    Attributes:
        used_bytes: What holds something.
        reusable_bytes: What held something, and is filled again before the file grows.
    """

    used_bytes: int
    reusable_bytes: int


@dataclass(slots=True)
class _Rewrite:
    yielding: bool
    done: Future[int] = field(default_factory=Future)


@dataclass(slots=True)
class _Checkpoint:
    done: Future[None] = field(default_factory=Future)


@dataclass(slots=True)
class _Write:
    job: Job[Any]
    done: Future[Any] = field(default_factory=Future)


class Database:
    """One file, open in this process alone; or tables in memory, which end with it.

    Attributes:
        generation: Counts how often the file was begun anew since this was made.
        set_aside: The files that had to be set aside.
        commits: How long transactions took, what is done in them included.
    """

    def __init__(self, path: Path | None, migrations: Sequence[Migration], *, replaceable: bool = False) -> None:
        """Nothing is opened yet.

        Args:
            path: The file; None for tables in memory.
            migrations: Its schema.
            replaceable: Whether it is begun anew also when it turns out to be damaged while it is in use, not only when it is
                opened: only where nobody holds in memory what would then be missing.
        """
        self.path = path
        self.name = "memory" if path is None else path.name
        self._migrations = migrations
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._jobs: queue.SimpleQueue[_Write | _Rewrite | _Checkpoint | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._run, name=f"writer-{self.name}", daemon=True)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix=f"reader-{self.name}")
        self._guard = threading.Condition()
        self._cursors: set[duckdb.DuckDBPyConnection] = set()
        self._retry_s = _FIRST_RETRY_S
        self._retry_at = 0.0
        self._rewriting = False
        self._copying: Copying | None = None
        self._replaceable = replaceable
        self._damage: duckdb.Error | None = None
        self.generation = 0
        self.set_aside: list[SetAside] = []
        self.commits = Timings()
        self._busy_since = 0.0  # of the monotonic clock; 0 while nothing is written

    @property
    def waiting(self) -> int:
        """How many writes wait."""
        return self._jobs.qsize()

    def trouble(self) -> Trouble | None:
        """Why nothing can be written now, as far as that is known; None when it can."""
        if not self._writer.is_alive():
            return Trouble(reason="its thread has ended", stuck=True) if self._writer.ident is not None else None
        since = self._busy_since  # once: the thread changes it
        busy_s = time.monotonic() - since if since else 0.0
        if busy_s > _STUCK_S:
            return Trouble(reason=f"a write has not ended for {busy_s:.0f} s", stuck=True)
        if self._connection is None and not self._rewriting:
            # It is opened anew when something is to be written, which nobody else may ask for now.
            self._jobs.put(_Write(lambda _: None))
            return Trouble(reason="it was closed after an error")
        return None

    async def open(self) -> None:
        """Opens the file, creating it if there is none, and brings its schema up to date; a damaged one is begun anew.

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
        self._queue(write)
        # Shielded: a caller that goes away does not make a transaction that runs undone.
        return await asyncio.shield(asyncio.wrap_future(write.done))

    def post(self, job: Job[Any], *, what: str) -> None:
        """Queues ``job`` behind what waits already, for writes that nobody waits for; a failure is logged as ``what``."""
        write = _Write(job)

        def report(done: Future[Any]) -> None:
            if error := done.exception():
                _log.error("write failed", file=self.name, what=what, error=str(error))

        write.done.add_done_callback(report)
        self._queue(write)

    def _queue(self, write: _Write) -> None:
        self._jobs.put(write)
        if copying := self._copying:
            copying.interrupt()

    async def checkpoint(self) -> None:
        """Puts everything into the file, and frees the blocks of deleted rows; where a reader is in the way, nothing.

        Raises:
            Unavailable: It cannot be done now.
        """
        checkpoint = _Checkpoint()
        self._jobs.put(checkpoint)
        await asyncio.shield(asyncio.wrap_future(checkpoint.done))

    async def size(self) -> Size:
        """How large it is, with what is not in the file yet.

        Raises:
            Unavailable: The database is being reopened.
        """

        def job(cursor: duckdb.DuckDBPyConnection) -> tuple[int, int, int]:
            row = cursor.execute("SELECT block_size, used_blocks, free_blocks FROM pragma_database_size()").fetchone()
            return (row[0], row[1], row[2]) if row else (0, 0, 0)

        block_bytes, used, free = await self.read(job)
        return Size(used_bytes=block_bytes * used, reusable_bytes=block_bytes * free)

    async def rewrite(self, *, yielding: bool = False) -> int:
        """Copies the file anew, so that nothing is left in it of rows that were deleted; reads and writes wait for that.

        DuckDB frees the blocks of deleted rows, and leaves in them what was there.

        Args:
            yielding: Whether a write that comes meanwhile ends it, with the file as it was.

        Returns:
            By how many bytes the file is smaller; 0 in memory.

        Raises:
            Unavailable: It cannot be done now; the file is as it was.
        """
        if self.path is None:
            return 0
        rewriting = _Rewrite(yielding)
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
        except duckdb.IOException as error:
            if not is_damage(error):
                raise
            _log.error("a part of the database is damaged", file=self.name, error=str(error))
            raise FailedPrecondition(
                f"A part of {self.name} is damaged, and what was asked for lies in it.",
                hint="Look at the colony's log and its disk; what lies elsewhere in the file can be read.",
            ) from error
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
                self._busy_since = time.monotonic()
                self._transact(group)
                self._busy_since = 0.0
            if isinstance(following, _Rewrite):
                self._rewrite(following)
            elif isinstance(following, _Checkpoint):
                self._checkpoint(following)
            stopping = following is None

    def _transact(self, group: list[_Write]) -> None:
        if not self._ready():
            for write in group:
                write.done.set_exception(self._unavailable())
            return
        try:
            with self.commits.noting():
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
        copying = Copying()
        try:
            self._disconnect()
            self._copying = copying if rewriting.yielding else None
            if rewriting.yielding and not self._jobs.empty():
                copying.interrupt()
            rewriting.done.set_result(copying.run(self.path))
        except duckdb.InterruptException:
            _log.info("the database was not copied anew: something is to be written", file=self.name)
            rewriting.done.set_result(0)
        except (duckdb.Error, OSError) as error:
            _log.error("the database was not copied anew", file=self.name, error=str(error))
            rewriting.done.set_exception(self._unavailable())
        finally:
            self._copying = None
            self._ready()
            with self._guard:
                self._rewriting = False
                self._guard.notify_all()

    def _checkpoint(self, checkpoint: _Checkpoint) -> None:
        if not self._ready():
            checkpoint.done.set_exception(self._unavailable())
            return
        connection = self._connection
        assert connection is not None, "_ready() was asked first"
        try:
            connection.execute("CHECKPOINT")
        except duckdb.TransactionException as error:  # a reader is in the way; DuckDB does it by itself later
            _log.debug("no checkpoint now", file=self.name, error=str(error))
        except duckdb.Error as error:
            self._reopen_later(error)
            checkpoint.done.set_exception(self._unavailable())
            return
        checkpoint.done.set_result(None)

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
        if self._replaceable and isinstance(error, duckdb.Error) and is_damage(error):
            self._damage = error
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
        if self._damage is not None and self.path is not None:
            self.set_aside += set_aside(self.path, str(self._damage))
            self.generation += 1
            self._damage = None
        connection, aside = open_database(self.path, self._migrations)
        if aside:
            self.generation += 1
            self.set_aside += aside
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
