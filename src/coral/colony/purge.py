"""Removes ended sessions with all that was recorded in them, on request: from the tables, and from the files below them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from coral.colony.book import SessionBook
from coral.colony.retention import remove_sessions
from coral.colony.store import control
from coral.colony.store.database import Database
from coral.colony.store.events import count_events
from coral.model.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from coral.model.text import check_name

_AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Purge:
    """Which sessions are to go: those that ended and that everything given applies to.

    Attributes:
        before_ns: Ended before this time; None for any.
        service_name: Of this service; empty for any.
        session_id: Only this one; empty for any.
    """

    before_ns: int | None
    service_name: str
    session_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """One session that goes, or would.

    Attributes:
        session_id: It.
        service_name: Its service.
        function_name: Its function.
        ended_at_ns: When it ended.
        events: How many events of it are stored.
    """

    session_id: str
    service_name: str
    function_name: str
    ended_at_ns: int
    events: int


class Purger:
    """Removes data."""

    def __init__(self, *, control_db: Database, events_db: Database, book: SessionBook) -> None:
        self._control = control_db
        self._events = events_db
        self._book = book

    async def find(self, purge: Purge) -> list[Purged]:
        """What would go, oldest first.

        Raises:
            InvalidArgument: Nothing is given that would narrow it.
            NotFound: There is no such session.
            FailedPrecondition: The session runs.
        """
        if purge.before_ns is None and not purge.service_name and not purge.session_id:
            raise InvalidArgument(
                "This would remove everything.", hint="Say what is to go: --before TIME, --service NAME or --session ID."
            )
        check_name(purge.service_name, "service_name", required=False)
        check_name(purge.session_id, "session_id", required=False)
        if purge.session_id:
            session = await self._book.view(purge.session_id)
            if not session.status.ended:
                raise FailedPrecondition(
                    f"Session {purge.session_id!r} runs.", hint=f"End it with `coral debug session stop {purge.session_id}`."
                )
        found = await self._control.read(
            lambda cursor: control.ended_sessions(
                cursor, before_ns=purge.before_ns, service_name=purge.service_name, session_id=purge.session_id
            )
        )
        if purge.session_id and not found:
            raise NotFound(
                f"Session {purge.session_id!r} is not one of those.",
                hint="Give the session alone, without --service or --before.",
            )
        counts = await self._events.read(lambda cursor: count_events(cursor, [session_id for session_id, *_ in found]))
        return [
            Purged(
                session_id=session_id,
                service_name=service_name,
                function_name=function_name,
                ended_at_ns=ended_at_ns,
                events=counts.get(session_id, 0),
            )
            for session_id, service_name, function_name, ended_at_ns in found
        ]

    async def remove(self, sessions: Sequence[Purged]) -> int:
        """Removes sessions, and copies both files anew without them.

        Events go first, so that a stop in between leaves a session without events rather than events without a session.

        Returns:
            By how many bytes the files are smaller.

        Raises:
            ResourceExhausted: There is no room to copy the files; nothing is removed.
            Unavailable: The databases cannot be written now; some sessions may be removed.
        """
        self._require_room()
        session_ids = [session.session_id for session in sessions]
        for start in range(0, len(session_ids), _AT_ONCE):
            await remove_sessions(session_ids[start : start + _AT_ONCE], control_db=self._control, events_db=self._events)
        if not session_ids:
            return 0
        return await self._events.rewrite() + await self._control.rewrite()

    def _require_room(self) -> None:
        for database in (self._events, self._control):
            if database.path is None:
                continue
            size, free = database.path.stat().st_size, os.statvfs(database.path.parent)
            if size > free.f_bavail * free.f_frsize:
                raise ResourceExhausted(
                    f"{database.name} has {size:,} bytes, and there is no room to copy it without what is to go.",
                    hint="Make room in the state directory for the time of the copy.",
                )


def events_of(sessions: Sequence[Purged]) -> int:
    """How many events go with some sessions."""
    return sum(session.events for session in sessions)
