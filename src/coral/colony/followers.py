"""Following a session: what is stored, then what comes, then its end. A follower goes at its own pace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from coral.colony.book import LiveSession, SessionBook
from coral.colony.store.database import Database
from coral.colony.store.events import following
from coral.events.batch import SCHEMA
from coral.model.session import Collector, Session

_ROWS = 10_000
_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to tell a follower.

    Attributes:
        session: As it is now.
        collector: Whose step it is; None in the last step, which tells of the end.
        events: Of ``SCHEMA``; empty when only counters moved.
        upto: The sequence reached with them.
    """

    session: Session
    collector: Collector | None
    events: pa.Table
    upto: int


class Followers:
    """Reads sessions for those who follow them."""

    def __init__(self, book: SessionBook, events_db: Database) -> None:
        self._book = book
        self._events = events_db

    async def follow(self, session_id: str, *, after: Mapping[str, int]) -> AsyncIterator[Step]:
        """Yields the events of a session, those of each collector in order, and at last one step without a collector.

        Args:
            session_id: Which.
            after: Collector id to the sequence that the follower has already.

        Raises:
            NotFound: There is no such session.
        """
        session = await self._book.view(session_id)
        live = self._book.get(session_id)
        reached = dict(after)
        told: dict[str, Collector] = {}
        while True:
            version, ended = (live.feed.version, live.feed.closed) if live else (0, True)
            session = live.view() if live else session
            for collector in session.collectors:
                collector_id = collector.collector_id
                async for events, upto in self._missing(live, collector_id, reached.get(collector_id, 0)):
                    reached[collector_id] = upto
                    told[collector_id] = collector
                    yield Step(session=session, collector=collector, events=events, upto=upto)
                if told.get(collector_id) != collector:
                    told[collector_id] = collector
                    upto = reached.get(collector_id, 0)
                    yield Step(session=session, collector=collector, events=SCHEMA.empty_table(), upto=upto)
            if live is None or ended:
                break
            await live.feed.changed(version)
        yield Step(session=session, collector=None, events=SCHEMA.empty_table(), upto=0)

    async def _missing(
        self, live: LiveSession | None, collector_id: str, position: int
    ) -> AsyncIterator[tuple[pa.Table, int]]:
        """The events of a collector after ``position``, in pieces, each with the sequence reached."""
        while True:
            target = live.collectors[collector_id].progress.last_sequence if live else None
            if target is not None and position >= target:
                return
            recent = live.feed.after(collector_id, position) if live else None
            if recent is not None:
                events, upto = recent.events.filter(pc.greater(recent.events["sequence"], position)), recent.upto
            else:
                events = await self._read(collector_id, position)
                last = events["sequence"][-1].as_py() if events.num_rows else position
                # A full page may have more behind it; a shorter one ends where the commits have got to.
                upto = last if events.num_rows == _ROWS else max(last, target or 0)
            for piece in pieces(events):
                position = piece["sequence"][-1].as_py()
                yield piece, position
            position = max(position, upto)
            if target is None and events.num_rows < _ROWS:
                return

    async def _read(self, collector_id: str, position: int) -> pa.Table:
        return await self._events.read(
            lambda cursor: following(cursor, collector_id=collector_id, after=position, limit=_ROWS)
        )


def pieces(events: pa.Table) -> Iterator[pa.Table]:
    """``events`` in parts that each fit a message."""
    if not events.num_rows:
        return
    per_row = max(1, events.nbytes // events.num_rows)
    size = max(1, min(_ROWS, _BYTES // per_row))
    for start in range(0, events.num_rows, size):
        yield events.slice(start, size)
