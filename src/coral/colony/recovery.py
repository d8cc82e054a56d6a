"""What a restart finds: sessions that had not ended are followed again, from where the events file stands."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import duckdb

from coral.colony.book import Ending, LiveCollector, LiveSession, SessionBook
from coral.colony.feed import Feed
from coral.colony.ingest import Ingest
from coral.colony.progress import Progress
from coral.colony.registry import Registry
from coral.colony.slots import Slots
from coral.colony.store import control
from coral.colony.store.control import Kept
from coral.colony.store.database import Database
from coral.colony.store.events import load_progress, slowest
from coral.model.session import InstanceStatus, ReasonCode, Status

_UNTOLD = "its collector ended while the colony stopped; how the process fared until then is not known"
_INTERRUPTED = "The colony stopped while it attached; what agents had attached is detached when they report it."


async def recover(
    *, control_db: Database, events_db: Database, book: SessionBook, ingest: Ingest, slots: Slots, registry: Registry
) -> list[LiveSession]:
    """Puts the sessions that had not ended back into the book, and notes which others may still be attached somewhere.

    Returns:
        Them, to be followed; of a session whose collectors have all ended only the end is missing.
    """
    kept = await control_db.read(control.unended)
    session_ids = [one.session.session_id for one in kept]

    def read(cursor: duckdb.DuckDBPyConnection) -> tuple[dict[str, Progress], dict[str, list[dict[str, Any]]]]:
        return load_progress(cursor, session_ids), {session_id: slowest(cursor, session_id) for session_id in session_ids}

    progress, slow = await events_db.read(read)
    for collector_id in progress:
        ingest.knows(collector_id)
    recovered = []
    for one in kept:
        live = _revive(one, progress)
        live.slowest = slow[live.session_id]
        book.add(live)
        for collector in live.collectors.values():
            # Its final batch was committed, but the colony stopped before it could note that in the control file.
            if collector.progress.status is not None:
                _let_go(collector)
                book.end_collector(collector, collector.progress.status, collector.progress.reason_code)
        if not live.collectors:
            live.ending = Ending(status=Status.FAILED, reason_code=ReasonCode.NONE, reason=_INTERRUPTED)
            slots.doubt(live.session, registry.may_host(live.session.service_name))
        recovered.append(live)
    for session in await control_db.read(lambda cursor: control.ended_early(cursor, time.time_ns())):
        lost = {one.agent_id for one in session.collectors if one.status in (Status.LOST, Status.FAILED)}
        if not session.collectors:  # it was interrupted by an earlier stop
            lost = set(registry.may_host(session.service_name))
        slots.doubt(session, lost)
    return recovered


def _let_go(collector: LiveCollector) -> None:
    """Notes that the processes of a collector are attached no more: its agent sent its final batch after it had detached."""
    instances = tuple(
        replace(instance, status=InstanceStatus.DETACHED, reason=instance.reason or _UNTOLD)
        if instance.status is InstanceStatus.ATTACHED
        else instance
        for instance in collector.instances
    )
    collector.unsaved = collector.unsaved or instances != collector.instances
    collector.instances = instances


def _revive(kept: Kept, progress: Mapping[str, Progress]) -> LiveSession:
    session_id = kept.session.session_id
    live = LiveSession(session=replace(kept.session, collectors=()), request=kept.request, feed=Feed())
    for collector in kept.session.collectors:
        revived = LiveCollector(
            agent_id=collector.agent_id,
            boot_id=kept.boot_ids[collector.collector_id],
            progress=progress.get(
                collector.collector_id, Progress(collector_id=collector.collector_id, session_id=session_id)
            ),
            status=collector.status,
            reason=collector.reason,
            reason_code=collector.reason_code,
            instances=collector.instances,
            unknown=collector.ledger.unknown_intervals,
        )
        if collector.status.ended:
            revived.ended.set()
        live.collectors[collector.collector_id] = revived
    return live
