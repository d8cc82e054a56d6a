"""What the colony does by the clock: heartbeats' times to disk, and old sessions out."""

from __future__ import annotations

import asyncio
import time

import structlog

from coral.colony.registry import SEEN_FLUSH_S, Registry
from coral.colony.store import control
from coral.colony.store.database import Database
from coral.colony.store.events import delete_events
from coral.model.errors import Unavailable

_log = structlog.get_logger(__name__)
_CLEANUP_S = 60.0
_AT_ONCE = 100


async def flush_registry(registry: Registry) -> None:
    """Writes down when agents were last heard of, every few seconds, until cancelled."""
    while True:
        await asyncio.sleep(SEEN_FLUSH_S)
        registry.flush()


async def cleanup(*, control_db: Database, events_db: Database, retention_s: int) -> None:
    """Removes sessions past their retention, every minute, until cancelled. The audit log is kept."""
    while True:
        try:
            await remove_ended(control_db=control_db, events_db=events_db, before_ns=time.time_ns() - retention_s * 10**9)
        except Unavailable as error:
            _log.warning("clean-up waits for the database", error=str(error))
        await asyncio.sleep(_CLEANUP_S)


async def remove_ended(*, control_db: Database, events_db: Database, before_ns: int) -> int:
    """Removes the sessions that ended before a time, with their events; returns how many.

    Events go first, so that a stop in between leaves a session without events rather than events without a session.
    """
    removed = 0
    while True:
        session_ids = await control_db.read(lambda cursor: control.ended_before(cursor, before_ns, limit=_AT_ONCE))
        if not session_ids:
            return removed
        await events_db.write(lambda connection, ids=session_ids: delete_events(connection, ids))  # type: ignore[misc]
        await control_db.write(lambda connection, ids=session_ids: control.delete_sessions(connection, ids))  # type: ignore[misc]
        removed += len(session_ids)
        _log.info("sessions removed", sessions=len(session_ids))
