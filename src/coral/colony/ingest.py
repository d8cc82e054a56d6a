"""From checked batches to committed events: whatever waits, of all collectors, goes into one transaction.

A transaction costs about 10 ms of CPU however few events it holds, so there are at most ten a second, and fewer when much
comes in: an event in a large one costs a third of what it does in a small one. The first event after a quiet time is
committed at once.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa
import structlog

from coral.colony.book import LiveCollector, LiveSession, SessionBook
from coral.colony.feed import Committed
from coral.colony.pool import Backoff
from coral.colony.progress import Progress, Received, advance
from coral.colony.results import keep_slowest
from coral.colony.store.database import Database
from coral.colony.store.events import Commit, commit_events, load_progress
from coral.colony.store.events import slowest as stored_slowest
from coral.colony.store.sources import Source
from coral.model.errors import Unavailable
from coral.model.session import ReasonCode, Status

_log = structlog.get_logger(__name__)
_INTERVAL_S = 0.1
_BUSY_INTERVAL_S = 0.3
_BUSY_ROWS = 10_000
"""A transaction with so many has busy collectors."""
_MAX_WAITING_ROWS = 200_000
_MAX_WAITING_BATCHES = 64
_MOST_WAITING_ROWS = 500_000
"""Of all collectors: about 100 MB."""


@dataclass(slots=True)
class _Waiting:
    live: LiveSession
    collector: LiveCollector
    batches: list[Received] = field(default_factory=list)
    rows: int = 0


@dataclass(slots=True, kw_only=True)
class _Outcome:
    """What a transaction came to, for the memory to follow once it is on disk."""

    moved: list[tuple[Progress, pa.Table]]
    slowest: dict[str, list[dict[str, Any]]]
    sources: dict[Source, int]


class Ingest:
    """The one writer of events."""

    def __init__(self, events: Database, book: SessionBook, *, min_free_bytes: int) -> None:
        self._events = events
        self._book = book
        self._min_free_bytes = min_free_bytes
        self._waiting: dict[str, _Waiting] = {}
        self._waiting_rows = 0
        self._known: set[str] = set()
        self._sources: dict[Source, int] = {}
        self._file = events.generation
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._room = asyncio.Condition()
        self._storing = True

    @property
    def waiting_rows(self) -> int:
        """How many events wait for the database."""
        return self._waiting_rows

    @property
    def storing(self) -> bool:
        """Whether events are stored; else there is too little space, and they are dropped and counted."""
        return self._storing

    def knows(self, collector_id: str) -> None:
        """Says that the events file has a row for a collector already: after a restart."""
        self._known.add(collector_id)

    async def put(self, live: LiveSession, collector: LiveCollector, batch: Received) -> None:
        """Queues a batch; waits while so much of this collector waits that its agent has to."""
        async with self._room:
            await self._room.wait_for(lambda: self._has_room(collector))
        waiting = self._waiting.setdefault(collector.collector_id, _Waiting(live, collector))
        waiting.batches.append(batch)
        waiting.rows += batch.events.num_rows
        self._waiting_rows += batch.events.num_rows
        self._wake.set()
        if batch.final:  # somebody may wait for the end of the session
            self._urgent.set()

    async def run(self) -> None:
        """Commits what waits, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            began = loop.time()
            taken = await self._take()
            await self._commit(taken)
            busy = sum(waiting.rows for waiting in taken) >= _BUSY_ROWS
            try:
                async with asyncio.timeout_at(began + (_BUSY_INTERVAL_S if busy else _INTERVAL_S)):
                    await self._urgent.wait()
            except TimeoutError:
                continue

    async def _take(self) -> list[_Waiting]:
        self._wake.clear()
        self._urgent.clear()
        taken, self._waiting = list(self._waiting.values()), {}
        self._waiting_rows = 0
        async with self._room:
            self._room.notify_all()
        return taken

    def _has_room(self, collector: LiveCollector) -> bool:
        if self._waiting_rows >= _MOST_WAITING_ROWS:
            return False
        waiting = self._waiting.get(collector.collector_id)
        return waiting is None or (waiting.rows < _MAX_WAITING_ROWS and len(waiting.batches) < _MAX_WAITING_BATCHES)

    async def _commit(self, taken: list[_Waiting]) -> None:
        """Commits, however long the database needs to come back; one collector's bad data fails that collector alone."""
        if not taken:
            return
        backoff, again = Backoff(), False
        while True:
            try:
                await self._transact(taken, again=again)
                return
            except Unavailable as error:
                _log.warning("events wait for the database", collectors=len(taken), error=str(error))
                again = True
                await asyncio.sleep(backoff.pause_s())
            except (duckdb.Error, ValueError, OverflowError) as error:
                if len(taken) == 1:
                    self._fail(taken[0], error)
                    return
                for waiting in taken:
                    await self._commit([waiting])
                return

    async def _transact(self, taken: list[_Waiting], *, again: bool) -> None:
        """Commits once. ``again``: an attempt before failed, and may be in the file all the same."""
        storing = await self._may_store()
        if self._file != self._events.generation:  # it was begun anew
            self._file = self._events.generation
            self._known.clear()
            self._sources.clear()
        before = {waiting.collector.collector_id: waiting.collector.progress for waiting in taken}
        slowest = {waiting.live.session_id: waiting.live.slowest for waiting in taken}
        session_ids = list(slowest)

        def job(connection: duckdb.DuckDBPyConnection) -> _Outcome:
            kept = load_progress(connection, session_ids) if again else {}
            best = {session_id: stored_slowest(connection, session_id) for session_id in session_ids} if again else slowest
            known = self._known.union(kept, (one for one, progress in before.items() if progress.status is not None))
            moved = [
                advance(kept.get(collector_id, progress), waiting.batches, storing=storing)
                for waiting, (collector_id, progress) in zip(taken, before.items(), strict=True)
            ]
            events = _by_session(moved)
            slow = best | {session_id: keep_slowest(best[session_id], table) for session_id, table in events.items()}
            changed = {session_id: found for session_id, found in slow.items() if found is not slowest[session_id]}
            commit = Commit(
                events=events,
                new=[progress for progress, _ in moved if progress.collector_id not in known],
                moved=[progress for progress, _ in moved if progress.collector_id in known],
                slowest=changed,
            )
            return _Outcome(moved=moved, slowest=changed, sources=commit_events(connection, commit, known=self._sources))

        outcome = await self._events.write(job)
        self._sources |= outcome.sources
        for waiting, (progress, table) in zip(taken, outcome.moved, strict=True):
            self._known.add(progress.collector_id)
            waiting.live.slowest = outcome.slowest.get(waiting.live.session_id, waiting.live.slowest)
            self._committed(waiting, progress, table)
        ended = {progress.collector_id for progress, _ in outcome.moved if progress.status is not None}
        if ended:
            self._known -= ended
            self._sources = {source: number for source, number in self._sources.items() if source.collector_id not in ended}

    def _committed(self, waiting: _Waiting, progress: Progress, table: pa.Table) -> None:
        live, collector = waiting.live, waiting.collector
        after, collector.progress = collector.progress.last_sequence, progress
        reported = next((batch.instances for batch in reversed(waiting.batches) if batch.instances is not None), None)
        active = any(batch.status is Status.ACTIVE for batch in waiting.batches)
        self._book.report(live, collector, collector.instances if reported is None else reported, active=active)
        live.feed.publish(
            Committed(collector_id=progress.collector_id, after=after, upto=progress.last_sequence, events=table)
        )
        if progress.status is not None:
            self._book.end_collector(collector, progress.status, progress.reason_code)

    def _fail(self, waiting: _Waiting, error: Exception) -> None:
        collector = waiting.collector
        _log.error("events refused by the database", collector_id=collector.collector_id, error=str(error))
        self._book.end_collector(collector, Status.FAILED, ReasonCode.NONE, f"Its events could not be stored: {error}.")

    async def _may_store(self) -> bool:
        if self._events.path is None:
            return True
        free = (await asyncio.to_thread(shutil.disk_usage, self._events.path.parent)).free
        storing = free >= self._min_free_bytes
        if storing != self._storing:
            self._storing = storing
            log = _log.info if storing else _log.error
            log(
                "events are stored again" if storing else "events are dropped: too little free space",
                free_bytes=free,
                min_free_bytes=self._min_free_bytes,
                state_dir=str(self._events.path.parent),
            )
        return storing


def _by_session(moved: Iterable[tuple[Progress, pa.Table]]) -> dict[str, pa.Table]:
    """The events of each session that has any."""
    events: dict[str, list[pa.Table]] = {}
    for progress, table in moved:
        if table.num_rows:
            events.setdefault(progress.session_id, []).append(table)
    return {session_id: pa.concat_tables(tables).unify_dictionaries() for session_id, tables in events.items()}
