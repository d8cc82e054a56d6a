"""The colony's metrics, read from what it keeps anyway. Loaded only where they are served.

No label has a value that a user, an agent or a program chooses: their number is bounded by what is written here.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import Metric

from coral.colony.audit import Audit
from coral.colony.book import SessionBook
from coral.colony.ingest import Ingest
from coral.colony.registry import Registry
from coral.colony.retention import Retention, Why
from coral.colony.slots import Slots
from coral.colony.store.database import Database
from coral.colony.tally import Tally
from coral.telemetry.calls import Calls
from coral.telemetry.metrics import counter, gauge, histogram, of_every_daemon
from coral.telemetry.vitals import Vitals

CALLS = ("entered", "returned", "no_return", "too_deep", "unseen", "orphan_returns")
"""The counters of the ledger that say what became of calls."""
NOT_REPORTED = ("filtered", "sampled_out", "rate_limited", "ring_lost")
"""Those that say why a call that was seen is no event."""


def of_colony(
    *,
    book: SessionBook,
    tally: Tally,
    registry: Registry,
    ingest: Ingest,
    slots: Slots,
    audit: Audit,
    databases: Iterable[Database],
    retention: Retention,
    calls: Calls,
    vitals: Vitals,
) -> Iterable[Metric]:
    """Everything that a colony tells of itself."""
    yield from _of_sessions(book, tally)
    yield gauge("coral_colony_attaches_waiting", "Attaches that wait for a slot.", ((), slots.waiting))
    agents = registry.agents()
    online = sum(agent.online for agent in agents)
    yield gauge(
        "coral_colony_agents", "Agents that the colony knows.",
        (("online",), online), (("offline",), len(agents) - online), labels=("state",),
    )  # fmt: skip
    yield from _of_calls(tally)
    yield gauge("coral_colony_ingest_waiting_events", "Events that wait for the database.", ((), ingest.waiting_rows))
    yield gauge("coral_colony_ingest_lag_seconds", "How old the oldest news is that is not stored.", ((), _lag_s(book)))
    yield gauge(
        "coral_colony_storing_events", "1, or 0 while events are dropped for want of space.", ((), float(ingest.storing))
    )
    yield from _of_storage(list(databases), audit)
    yield counter(
        "coral_colony_sessions_removed", "Sessions that went (time), or their events, by why.",
        *(((why.value,), retention.removed[why]) for why in Why), labels=("why",),
    )  # fmt: skip
    yield counter(
        "coral_colony_events_removed", "Events that went with them.",
        *(((why.value,), retention.removed_events[why]) for why in Why), labels=("why",),
    )  # fmt: skip
    yield from of_every_daemon(calls, vitals)


def _of_sessions(book: SessionBook, tally: Tally) -> Iterable[Metric]:
    sessions = Counter(live.session.status.value for live in book)
    running = [collector for live in book for collector in live.collectors.values() if not collector.ended.is_set()]
    collectors = Counter(collector.status.value for collector in running)
    instances = Counter(instance.status.value for collector in running for instance in collector.instances)
    for name, help, found in (
        ("coral_colony_sessions", "Sessions that run, by status.", sessions),
        ("coral_colony_collectors", "Their collectors, by status.", collectors),
    ):
        samples = (((status,), found[status]) for status in ("pending", "active"))
        yield gauge(name, help, *samples, labels=("status",))
    yield gauge(
        "coral_colony_instances", "Their processes, by status.",
        *(((status,), count) for status, count in sorted(instances.items())), labels=("status",),
    )  # fmt: skip
    yield counter(
        "coral_colony_sessions_ended", "Sessions that have ended, by status and reason.",
        *tally.ended.items(), labels=("status", "reason"),
    )  # fmt: skip


def _of_calls(tally: Tally) -> Iterable[Metric]:
    ledger = tally.ledger()
    yield counter(
        "coral_colony_calls", "Calls of probed functions, by what became of them; entered is all of them.",
        *(((name,), getattr(ledger, name)) for name in CALLS), labels=("what",),
    )  # fmt: skip
    yield counter(
        "coral_colony_calls_not_reported", "Calls that were seen and are no event, by reason.",
        *(((name,), getattr(ledger, name)) for name in NOT_REPORTED), labels=("reason",),
    )  # fmt: skip
    yield counter("coral_colony_events_emitted", "Events that agents put into their rings.", ((), ledger.emitted))
    yield counter("coral_colony_events_stored", "Events stored.", ((), ledger.stored))
    yield counter("coral_colony_events_dropped", "Events that were emitted and never came.", ((), ledger.queue_dropped))
    yield gauge("coral_colony_events_in_transit", "Events emitted and neither stored nor dropped.", ((), ledger.in_transit))
    yield gauge("coral_colony_unknown_intervals", "Times without counts, of sessions.", ((), len(ledger.unknown_intervals)))


def _of_storage(databases: list[Database], audit: Audit) -> Iterable[Metric]:
    named = [(database.path.stem if database.path else "memory", database) for database in databases]
    yield histogram(
        "coral_colony_commit_seconds", "How long transactions took, with what is done in them.",
        *(((name,), database.commits) for name, database in named), labels=("file",),
    )  # fmt: skip
    yield gauge(
        "coral_colony_writes_waiting", "Writes that wait for the database.",
        *(((name,), database.waiting) for name, database in named), labels=("file",),
    )  # fmt: skip
    yield counter(
        "coral_colony_files_set_aside", "Damaged database files that were set aside.",
        *(((name,), len(database.set_aside)) for name, database in named), labels=("file",),
    )  # fmt: skip
    paths = [(name, database.path) for name, database in named if database.path is not None and database.path.exists()]
    yield gauge(
        "coral_colony_database_bytes", "Size of the database files.",
        *(((name,), path.stat().st_size) for name, path in paths), labels=("file",),
    )  # fmt: skip
    if paths:
        free = shutil.disk_usage(paths[0][1].parent).free
        yield gauge("coral_colony_free_bytes", "Free space where they are.", ((), free))
    yield counter("coral_colony_audit_records", "Records of the audit log, since it began.", ((), audit.writer.head.sequence))
    yield gauge("coral_colony_audit_waiting", "Records that the table has not got yet.", ((), audit.table.waiting))
    yield histogram("coral_colony_audit_write_seconds", "How long its writes took, synced.", ((), audit.writer.writes))


def _lag_s(book: SessionBook) -> float:
    lags_ns = [
        live.now_ns - collector.received_ns
        for live in book
        for collector in live.collectors.values()
        if collector.unstored and not collector.ended.is_set()
    ]
    return max([0, *lags_ns]) / 1e9
