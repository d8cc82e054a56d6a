"""Which data goes when, without anybody asking: what is older than it may be, and what there is no room for.

Sessions go a week after their end. Before that, when the events file has become too large or the disk too full, the events
of whole sessions go, those that ended first before the others, and never those of one that runs. Their sessions stay, with
ledger, statistics and slowest calls, and say that the events are gone.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import structlog
from ulid import ULID

from coral.colony.book import SessionBook
from coral.colony.store import control
from coral.colony.store.database import Database
from coral.colony.store.events import delete_events, delete_results, sessions_with_events
from coral.model.errors import Unavailable

_log = structlog.get_logger(__name__)
_ROUND_S = 10.0
_AT_ONCE = 100
_WORTH_BYTES = 64 << 20


class Why(StrEnum):
    """Why data went; a label of metrics."""

    TIME = "time"
    SIZE = "size"
    FREE_SPACE = "free_space"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is kept.

    Attributes:
        sessions_s: For how long after their end sessions are kept.
        events_bytes: How large the events may become; 0 for any size.
        free_bytes: How much of the disk is to be free.
    """

    sessions_s: int
    events_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Room:
    used_bytes: int
    reusable_bytes: int
    free_bytes: int


class Retention:
    """Removes what is not kept any longer.

    Attributes:
        removed: By reason, how many sessions went: whole ones (``time``) or their events.
        removed_events: Likewise how many events.
    """

    def __init__(self, *, control_db: Database, events_db: Database, book: SessionBook, limits: Limits) -> None:
        self._control = control_db
        self._events = events_db
        self._book = book
        self._limits = limits
        self.removed: Counter[Why] = Counter()
        self.removed_events: Counter[Why] = Counter()

    async def run(self) -> None:
        """Looks every ten seconds, until cancelled. The audit log has a retention of its own."""
        while True:
            try:
                await self.round()
            except Unavailable as error:
                _log.warning("retention waits for the database", error=str(error))
            await asyncio.sleep(_ROUND_S)

    async def round(self) -> None:
        """Removes what is due now.

        Raises:
            Unavailable: The databases cannot be written now.
        """
        before_ns = time.time_ns() - self._limits.sessions_s * 10**9
        await self.remove_ended(before_ns=before_ns)
        stranger = await self._stranger()
        if stranger is not None and stranger < str(ULID.from_timestamp(before_ns / 10**9)):
            await remove_sessions([stranger], control_db=self._control, events_db=self._events)
        if self._events.path is None:
            return
        gone = False
        while (why := _over(self._limits, await self._room())) is not None:
            candidate = await self._stranger() or await self._control.read(control.oldest_with_events)
            if candidate is None:
                break
            gone = await self._remove_events_of(candidate, why) or gone
        if gone:
            await self._give_back()

    async def remove_ended(self, *, before_ns: int) -> int:
        """Removes the sessions that ended before a time, with their events; returns how many.

        Events go first, so that a stop in between leaves a session without events rather than events without a session.
        """
        removed = 0
        while True:
            ids = await self._control.read(lambda cursor: control.ended_before(cursor, before_ns, limit=_AT_ONCE))
            if not ids:
                return removed
            events = await remove_sessions(ids, control_db=self._control, events_db=self._events)
            removed += len(ids)
            self.removed[Why.TIME] += len(ids)
            self.removed_events[Why.TIME] += events
            _log.info("sessions removed", sessions=len(ids), events=events, why=Why.TIME)

    async def _stranger(self) -> str | None:
        """The oldest session that has events, and of which the control file knows nothing: it was begun anew."""
        having = await self._events.read(sessions_with_events)
        known = await self._control.read(lambda cursor: control.known_sessions(cursor, having))
        return next((one for one in having if one not in known and self._book.get(one) is None), None)

    async def _remove_events_of(self, session_id: str, why: Why) -> bool:
        events = await remove_events(self._events, session_id)
        now_ns = time.time_ns()
        await self._control.write(
            lambda connection: control.note_events_removed(connection, [session_id], when_ns=now_ns, why=why)
        )
        if events:
            await self._events.checkpoint()
            self.removed[why] += 1
            self.removed_events[why] += events
            _log.info("events of a session removed", session_id=session_id, events=events, why=why)
        return events > 0

    async def _room(self) -> _Room:
        assert self._events.path is not None, "round() has looked"
        size = await self._events.size()
        free = (await asyncio.to_thread(shutil.disk_usage, self._events.path.parent)).free
        return _Room(used_bytes=size.used_bytes, reusable_bytes=size.reusable_bytes, free_bytes=free)

    async def _give_back(self) -> None:
        """Copies the file anew when more of it is empty than not: DuckDB fills freed blocks again, and keeps them till then.

        Only while nothing is stored, and no longer than until something is to be.
        """
        room = await self._room()
        worth = room.reusable_bytes > max(_WORTH_BYTES, room.used_bytes)
        if worth and not len(self._book) and room.used_bytes < room.free_bytes:
            smaller = await self._events.rewrite(yielding=True)
            _log.info("the events file was copied anew", smaller_bytes=smaller)


async def remove_sessions(session_ids: Sequence[str], *, control_db: Database, events_db: Database) -> int:
    """Removes sessions with all that was recorded in them; returns how many events that was.

    Raises:
        Unavailable: The databases cannot be written now; some may be removed.
    """
    events = 0
    for session_id in session_ids:
        events += await remove_events(events_db, session_id)
    ids = list(session_ids)
    await events_db.write(lambda connection: delete_results(connection, ids))
    await control_db.write(lambda connection: control.delete_sessions(connection, ids))
    return events


async def remove_events(events_db: Database, session_id: str) -> int:
    """Removes the events of a session, in pieces between which others may write; returns how many.

    Raises:
        Unavailable: The database cannot be written now; some may be removed.
    """
    removed = 0
    while True:
        deleted = await events_db.write(lambda connection: delete_events(connection, session_id))
        if deleted is None:
            return removed
        removed += deleted


def _over(limits: Limits, room: _Room) -> Why | None:
    """Why there is too much; None if there is not."""
    if limits.events_bytes and room.used_bytes > limits.events_bytes:
        return Why.SIZE
    # What is empty inside of the file is as good as free: events go there first.
    if room.free_bytes + room.reusable_bytes < limits.free_bytes:
        return Why.FREE_SPACE
    return None
