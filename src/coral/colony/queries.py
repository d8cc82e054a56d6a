"""Reading sessions and events, a page at a time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import duckdb

from coral.colony.book import SessionBook
from coral.colony.results import Statistics, merged, statistics
from coral.colony.store.database import Database
from coral.colony.store.events import Position, load_progress, page, slowest
from coral.events.batch import rows
from coral.events.histogram import Histogram
from coral.model.errors import InvalidArgument, NotFound
from coral.model.session import Session, Status
from coral.model.text import check_name
from coral.wire.paging import make_token, page_size, read_token

_SESSIONS_PAGE = 100
_SESSIONS_MAX = 1_000
_GONE = {
    "size": "all events together took more room than they may (max_events_bytes)",
    "free_space": "the disk had less free space than it is to have (keep_free_bytes)",
    "damage": "the events file was damaged, and set aside",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsPage:
    """Part of the events of a session, in the order (timestamp, collector, sequence).

    Attributes:
        session: As it is now.
        events: As ``events.batch.rows`` gives them.
        more: Whether there are more behind them.
        upto: Collector id to the sequence that the first page pinned.
    """

    session: Session
    events: list[dict[str, Any]]
    more: bool
    upto: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What a session says about its function."""

    session: Session
    statistics: Statistics
    slowest: list[dict[str, Any]]
    histogram: Histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsQuery:
    """A query for events, checked.

    Attributes:
        session_id: Whose.
        start_ns: Inclusive; None for no bound.
        end_ns: Exclusive; None for no bound.
        limit: At most so many in a page.
    """

    session_id: str
    start_ns: int | None
    end_ns: int | None
    limit: int

    @property
    def identity(self) -> dict[str, object]:
        """What a page token is bound to. The size of the pages may change from one to the next."""
        return {"events_of": self.session_id, "start_ns": self.start_ns, "end_ns": self.end_ns}


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsPage:
    """Part of the sessions, newest first.

    Attributes:
        sessions: As they are now.
        more: Whether there are older ones.
    """

    sessions: list[Session]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsQuery:
    """A query for sessions, checked. Empty stands for all.

    Attributes:
        service_name: Only of this service.
        status: Only in this state.
        session_id: Only this one.
        limit: At most so many in a page.
    """

    service_name: str
    status: str
    session_id: str
    limit: int

    @property
    def identity(self) -> dict[str, object]:
        """What a page token is bound to."""
        return {"sessions": [self.service_name, self.status, self.session_id]}

    def token(self, last: Session) -> str:
        """The token that continues after ``last``."""
        return make_token(self.identity, {"before": last.session_id})


class Queries:
    """Answers about sessions, running and ended."""

    def __init__(self, book: SessionBook, events_db: Database) -> None:
        self._book = book
        self._events = events_db

    async def events(self, query: EventsQuery, token: str) -> EventsPage:
        """One page of events.

        The first page pins how far each collector had got; later pages show that snapshot.

        Raises:
            NotFound: There is no such session, or its events are gone.
            InvalidArgument: The token is of another query.
        """
        check_name(query.session_id, "session_id")
        session = await self._book.view(query.session_id)
        after: Position | None = None
        if token:
            state = read_token(token, query.identity)
            upto = {str(collector_id): int(sequence) for collector_id, sequence in state["upto"].items()}
            after = Position(timestamp_ns=state["after"][0], collector_id=state["after"][1], sequence=state["after"][2])
        else:
            upto = await self._reached(query.session_id)

        # One more than asked for says whether there is another page.
        def read(cursor: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
            found = page(
                cursor,
                session_id=query.session_id,
                upto=upto,
                start_ns=query.start_ns,
                end_ns=query.end_ns,
                after=after,
                limit=query.limit + 1,
            )
            return list(rows(found))

        found = await self._events.read(read)
        if not found and session.events_removed_at_ns:
            raise NotFound(
                f"The events of session {query.session_id!r} are gone since {_utc(session.events_removed_at_ns)}: "
                f"{_GONE.get(session.events_removed_why, session.events_removed_why)}.",
                hint=f"What is left of it shows `coral debug session get {query.session_id}`.",
            )
        return EventsPage(session=session, events=found[: query.limit], more=len(found) > query.limit, upto=upto)

    async def sessions(self, query: SessionsQuery, token: str) -> SessionsPage:
        """One page of sessions, newest first.

        Raises:
            NotFound: ``session_id`` names none.
            InvalidArgument: The token is of another query.
        """
        before = str(read_token(token, query.identity)["before"]) if token else ""
        found = await self._book.find(
            service_name=query.service_name,
            status=query.status,
            session_id=query.session_id,
            before=before,
            limit=query.limit + 1,
        )
        if query.session_id and not found and not query.service_name and not query.status:
            raise NotFound(
                f"There is no session {query.session_id!r}.", hint="`coral debug session list` has all that are kept."
            )
        return SessionsPage(sessions=found[: query.limit], more=len(found) > query.limit)

    async def results(self, session_id: str, *, service_name: str) -> Results:
        """What a session says about its function.

        Raises:
            NotFound: There is no such session, or it is of another service.
        """
        check_name(session_id, "session_id")
        session = await self._book.view(session_id)
        if service_name not in ("", session.service_name):
            raise NotFound(
                f"Session {session_id!r} is of service {session.service_name!r}, not {service_name!r}.",
                hint="Leave service_name out.",
            )
        live = self._book.get(session_id)
        if live is not None:
            histogram = merged(collector.progress.histogram for collector in live.collectors.values())
            slow = list(live.slowest)
        else:
            histogram, slow = await self._events.read(lambda cursor: _stored_results(cursor, session_id))
        now_ns = live.now_ns if live is not None else None
        found = statistics(session, histogram, now_ns=now_ns)
        return Results(session=session, statistics=found, slowest=slow, histogram=histogram)

    async def _reached(self, session_id: str) -> dict[str, int]:
        live = self._book.get(session_id)
        if live is not None:
            return {one.collector_id: one.progress.last_sequence for one in live.collectors.values()}
        progress = await self._events.read(lambda cursor: load_progress(cursor, [session_id]))
        return {collector_id: one.last_sequence for collector_id, one in progress.items()}


def events_query(*, session_id: str, start_ns: int | None, end_ns: int | None, max_events: int) -> EventsQuery:
    """A checked query.

    Raises:
        InvalidArgument: ``max_events`` is out of range, or the times are the wrong way round.
    """
    if start_ns is not None and end_ns is not None and end_ns < start_ns:
        raise InvalidArgument("end_time is before start_time.", hint="Swap them.")
    return EventsQuery(
        session_id=session_id, start_ns=start_ns, end_ns=end_ns, limit=page_size(max_events, field="max_events")
    )


def sessions_query(*, service_name: str, status: str, session_id: str, size: int) -> SessionsQuery:
    """A checked query.

    Raises:
        InvalidArgument: A value is out of range.
    """
    check_name(service_name, "service_name", required=False)
    check_name(session_id, "session_id", required=False)
    if status and status not in set(Status):
        raise InvalidArgument(f"{status!r} is no status.", hint=f"Choose one of {', '.join(Status)}.")
    limit = page_size(size, field="page_size", default=_SESSIONS_PAGE, maximum=_SESSIONS_MAX)
    return SessionsQuery(service_name=service_name, status=status, session_id=session_id, limit=limit)


def next_token(query: EventsQuery, found: EventsPage, count: int) -> str:
    """The token that continues after the first ``count`` events of a page."""
    last = found.events[count - 1]
    return make_token(
        query.identity,
        {"upto": found.upto, "after": [last["timestamp_ns"], last["collector_id"], last["sequence"]]},
    )


def _utc(time_ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ns // 10**9))


def _stored_results(cursor: duckdb.DuckDBPyConnection, session_id: str) -> tuple[Histogram, list[dict[str, Any]]]:
    histogram = merged(one.histogram for one in load_progress(cursor, [session_id]).values())
    return histogram, slowest(cursor, session_id)
