"""The one thread that gives records their numbers and hashes, and writes the copy: what waits shares one sync.

A record exists once it is in the copy: what cannot be written there has no number, and the chain goes on as if it had not
been. From there it goes to the table.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from coral.colony.audit.copy import Copy
from coral.colony.audit.entry import Entry
from coral.colony.audit.table import AuditTable
from coral.model.errors import Unavailable
from coral.telemetry.timings import Timings
from coral.telemetry.vitals import Trouble
from coral.trust.chain import Record, time_text
from coral.trust.checkpoint import ACTION, LATEST_FILE, PRINCIPAL, CheckpointKey
from coral.trust.evidence import Head
from coral.trust.secret_files import write_secret

T = TypeVar("T")
_GROUP = 256
_SYNC_AFTER_S = 0.2
_STUCK_S = 120.0
CHECKPOINT_EVERY = 1000
"""After so many records a checkpoint is written, however little time has gone by."""

_log = structlog.get_logger(__name__)


def _under_way() -> Future[Any]:
    """A future that cannot be cancelled: who no longer waits for it must not keep the thread from saying what came of it."""
    made: Future[Any] = Future()
    made.set_running_or_notify_cancel()
    return made


@dataclass(slots=True)
class _Writing:
    entry: Entry
    sync: bool
    done: Future[Record] = field(default_factory=_under_way)


@dataclass(slots=True)
class _Job:
    job: Callable[[], Any]
    done: Future[Any] = field(default_factory=_under_way)


class Writer:
    """Writes entries as records. Methods may be called from any thread."""

    def __init__(self, copy: Copy | None, table: AuditTable, key: CheckpointKey) -> None:
        """Args: ``copy`` is None for a log in memory, which has a table alone."""
        self._copy = copy
        self._table = table
        self._key = key
        self._queue: queue.SimpleQueue[_Writing | _Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._unsynced = False
        self._since_checkpoint = 0
        self.head = Head()
        self.begins = 1
        self.failure = ""
        self._latest: Record | None = None
        self.writes = Timings()
        self._busy_since = 0.0  # of the monotonic clock; 0 while nothing is written

    @property
    def waiting(self) -> int:
        """How many records and jobs wait."""
        return self._queue.qsize()

    @property
    def trouble(self) -> Trouble | None:
        """Whether the thread does not move any more."""
        if not self._thread.is_alive():
            return Trouble(reason="its thread has ended", stuck=True)
        since = self._busy_since  # once: the thread changes it
        busy_s = time.monotonic() - since if since else 0.0
        return Trouble(reason=f"a write has not ended for {busy_s:.0f} s", stuck=True) if busy_s > _STUCK_S else None

    @property
    def since_checkpoint(self) -> int:
        """How many records no checkpoint covers yet."""
        return self._since_checkpoint

    @property
    def unkept(self) -> bool:
        """Whether the newest checkpoint is not kept apart yet."""
        return self._latest is not None

    def start(self, head: Head, *, begins: int) -> None:
        """Goes on with a chain.

        Args:
            head: Its last record.
            begins: The first that is kept.
        """
        self.head, self.begins = head, begins
        self._thread.start()

    def stop(self) -> None:
        """Writes what is queued, and ends the thread."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def write(self, entry: Entry, *, sync: bool) -> Future[Record]:
        """Queues an entry.

        Args:
            entry: What to write.
            sync: Whether it must be on the disk when the future is done; else it is a moment later.

        Returns:
            Its record, or ``Unavailable``: it is not in the log.
        """
        writing = _Writing(entry, sync)
        self._queue.put(writing)
        return writing.done

    def checkpoint(self) -> Future[Record]:
        """Queues a checkpoint."""
        return self.write(Entry(principal=PRINCIPAL, role="", address="", action=ACTION, outcome="ok"), sync=True)

    def between(self, job: Callable[[], T]) -> Future[T]:
        """Runs ``job`` in the thread, between two writes."""
        queued: _Job = _Job(job)
        self._queue.put(queued)
        return queued.done

    def let_go(self, first: int) -> None:
        """Has later checkpoints say that records before ``first`` are kept no longer; a job for ``between``."""
        self.begins = max(self.begins, first)

    def keep_checkpoint(self) -> None:
        """Keeps the newest checkpoint outside of the log, once the table has it too; a restart counts on that.

        A job for ``between``.
        """
        latest = self._latest
        if latest is None or self._copy is None or latest.sequence > self._table.committed:
            return
        self._latest = None
        try:
            write_secret(self._copy.folder / LATEST_FILE, latest.line() + b"\n")
        except OSError as error:
            _log.warning("the newest audit checkpoint is not kept apart", error=str(error))

    def _run(self) -> None:
        stopping = False
        while not stopping:
            group: list[_Writing] = []
            following = self._next()
            while isinstance(following, _Writing):
                group.append(following)
                if len(group) == _GROUP or self._queue.empty():
                    break
                following = self._queue.get()
            if group:
                self._busy_since = time.monotonic()
                with self.writes.noting():
                    self._write(group)
                self._busy_since = 0.0
            if isinstance(following, _Job):
                self._do(following)
            stopping = following is None

    def _next(self) -> _Writing | _Job | None:
        """What is queued next; when nothing comes for a while, what is written is synced."""
        if self._unsynced:
            try:
                return self._queue.get(timeout=_SYNC_AFTER_S)
            except queue.Empty:
                self._sync()
        return self._queue.get()

    def _sync(self) -> None:
        self._unsynced = False
        try:
            if self._copy:
                self._copy.sync()
        except OSError as error:
            self._failed(error)

    def _write(self, group: list[_Writing]) -> None:
        head, records = self.head, []
        for writing in group:
            record = writing.entry.record(sequence=head.sequence + 1, time=time_text(time.time_ns()), previous_hash=head.hash)
            if record.action == ACTION:
                record = self._key.sign(record, first=self.begins, table=min(self._table.committed, head.sequence))
            records.append(record)
            head = Head(sequence=record.sequence, hash=record.hash)
        sync = any(writing.sync for writing in group)
        try:
            if self._copy:
                data = b"".join(record.line() + b"\n" for record in records)
                self._copy.append(data, first=records[0].sequence, sync=sync)
        except OSError as error:
            unavailable = self._failed(error)
            for writing in group:
                writing.done.set_exception(unavailable)
            return
        self.failure = ""
        self._unsynced = not sync and self._copy is not None
        self.head = head
        self._table.add(records)
        for writing, record in zip(group, records, strict=True):
            writing.done.set_result(record)
        self._after(records)

    def _after(self, records: list[Record]) -> None:
        """What is due once records are written: a checkpoint, and another file."""
        signed = [index for index, record in enumerate(records) if record.action == ACTION]
        if signed:
            self._since_checkpoint = len(records) - signed[-1] - 1
            self._latest = records[signed[-1]]
            # Into this process's own log too, which may lie where nobody on this host can change it.
            _log.info("audit checkpoint", sequence=self._latest.sequence, hash=self._latest.hash)
        else:
            self._since_checkpoint += len(records)
        if self._since_checkpoint >= CHECKPOINT_EVERY:
            self._since_checkpoint = 0
            self.checkpoint()
        try:
            if self._copy:
                self._copy.rotate()
        except OSError as error:
            _log.warning("the audit log's file goes on although it is large", error=str(error))

    def _do(self, queued: _Job) -> None:
        try:
            queued.done.set_result(queued.job())
        except Exception as error:  # noqa: BLE001  (the boundary of the thread: it belongs to who waits for it)
            queued.done.set_exception(error)

    def _failed(self, error: OSError) -> Unavailable:
        reason = error.strerror or str(error)
        if not self.failure:
            _log.error("the audit log cannot be written", error=reason)
        self.failure = reason
        return unwritable(reason)


def unwritable(reason: str) -> Unavailable:
    """What to answer while the log cannot be written."""
    return Unavailable(
        f"The audit log cannot be written ({reason}), and nothing is done that is not in it.",
        hint="Free disk space in the colony's state directory if that is full. If the log's file was moved or changed, put "
        "it back, or restart the colony: it begins another, and `coral audit verify` names what is missing.",
    )
