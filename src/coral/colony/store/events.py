"""Events and the progress of their collectors, as the events file keeps them. Rows go in and out as Arrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import duckdb
import pyarrow as pa

from coral.colony.progress import Progress
from coral.colony.store.documents import ledger_of, ledger_text
from coral.events.batch import SCHEMA
from coral.events.histogram import Histogram
from coral.model.session import ReasonCode, Status

_COLUMNS = ", ".join(f'"{name}"' for name in SCHEMA.names)
_PROGRESS = pa.schema(
    [
        ("collector_id", pa.string()),
        ("session_id", pa.string()),
        ("last_sequence", pa.uint64()),
        ("stored", pa.uint64()),
        ("queue_dropped", pa.uint64()),
        ("ledger", pa.string()),
        ("histogram", pa.binary()),
        ("snapshot_at_ns", pa.int64()),
        ("ended", pa.bool_()),
        ("status", pa.string()),
        ("reason_code", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place in the order of events: after this one."""

    timestamp_ns: int
    collector_id: str
    sequence: int


def commit_events(
    connection: duckdb.DuckDBPyConnection,
    *,
    events: Mapping[str, pa.Table],
    new: Sequence[Progress],
    moved: Sequence[Progress],
) -> None:
    """Inserts events and moves the progress of their collectors; the job of one transaction.

    Args:
        connection: The writer's.
        events: Session id to the events to insert, of ``SCHEMA``.
        new: The progress of the collectors that have no row yet.
        moved: That of the others.
    """
    for session_id, table in events.items():
        connection.register("new_events", table)
        connection.execute(f"INSERT INTO uprobe_events SELECT {_COLUMNS}, ? FROM new_events", [session_id])
        connection.unregister("new_events")
    if new:
        connection.register("new_progress", _progress_table(new))
        connection.execute("INSERT INTO collector_progress SELECT * FROM new_progress")
        connection.unregister("new_progress")
    if moved:
        connection.register("moved", _progress_table(moved))
        connection.execute(
            """
            UPDATE collector_progress AS kept SET
                last_sequence = moved.last_sequence, stored = moved.stored, queue_dropped = moved.queue_dropped,
                ledger = moved.ledger, histogram = moved.histogram, snapshot_at_ns = moved.snapshot_at_ns,
                ended = moved.ended, status = moved.status, reason_code = moved.reason_code
            FROM moved WHERE kept.collector_id = moved.collector_id
            """
        )
        connection.unregister("moved")


def load_progress(connection: duckdb.DuckDBPyConnection, session_ids: Sequence[str]) -> dict[str, Progress]:
    """Collector id to its progress, for all collectors of some sessions."""
    found = connection.execute(
        "SELECT * FROM collector_progress WHERE list_contains(?::VARCHAR[], session_id)", [list(session_ids)]
    ).fetchall()
    return {
        row[0]: Progress(
            collector_id=row[0],
            session_id=row[1],
            last_sequence=row[2],
            stored=row[3],
            queue_dropped=row[4],
            ledger=ledger_of(row[5]),
            histogram=Histogram.from_bytes(row[6]),
            snapshot_at_ns=row[7],
            status=Status(row[9]) if row[8] else None,
            reason_code=ReasonCode(row[10]),
        )
        for row in found
    }


def page(
    connection: duckdb.DuckDBPyConnection,
    *,
    session_id: str,
    upto: Mapping[str, int],
    start_ns: int | None,
    end_ns: int | None,
    after: Position | None,
    limit: int,
) -> pa.Table:
    """Events in the order (timestamp, collector, sequence).

    Args:
        connection: A cursor.
        session_id: Whose.
        upto: Collector id to the highest sequence that counts: the snapshot that a query reads.
        start_ns: From this time on; None for no bound.
        end_ns: Before this time; None for no bound.
        after: Only after this place; None for the first page.
        limit: At most so many.

    Returns:
        A table of ``SCHEMA``.
    """
    where = ["session_id = $session_id"]
    values: dict[str, object] = {"session_id": session_id, "row_limit": limit}
    if start_ns is not None:
        where.append("timestamp_ns >= $start_ns")
        values["start_ns"] = start_ns
    if end_ns is not None:
        where.append("timestamp_ns < $end_ns")
        values["end_ns"] = end_ns
    if after is not None:
        # The first term alone lets DuckDB skip row groups by their bounds.
        where.append(
            "timestamp_ns >= $after_ns AND (timestamp_ns, collector_id, sequence) > "
            "($after_ns::BIGINT, $after_collector::VARCHAR, $after_sequence::UBIGINT)"
        )
        values |= {
            "after_ns": after.timestamp_ns,
            "after_collector": after.collector_id,
            "after_sequence": after.sequence,
        }
    bounds = []
    for index, (collector_id, sequence) in enumerate(upto.items()):
        bounds.append(f"(collector_id = $collector_{index} AND sequence <= $sequence_{index})")
        values |= {f"collector_{index}": collector_id, f"sequence_{index}": sequence}
    where.append(f"({' OR '.join(bounds) or 'false'})")
    return _read(
        connection,
        f"SELECT {_COLUMNS} FROM uprobe_events WHERE {' AND '.join(where)} "
        "ORDER BY timestamp_ns, collector_id, sequence LIMIT $row_limit",
        values,
    )


def following(connection: duckdb.DuckDBPyConnection, *, collector_id: str, after: int, limit: int) -> pa.Table:
    """Events of one collector after a sequence, in that order."""
    return _read(
        connection,
        f"SELECT {_COLUMNS} FROM uprobe_events WHERE collector_id = $collector_id AND sequence > $after "
        "ORDER BY sequence LIMIT $row_limit",
        {"collector_id": collector_id, "after": after, "row_limit": limit},
    )


def slowest(connection: duckdb.DuckDBPyConnection, *, session_id: str, limit: int) -> pa.Table:
    """The events with the longest durations, longest first."""
    return _read(
        connection,
        f"SELECT {_COLUMNS} FROM uprobe_events WHERE session_id = $session_id AND event_type <> 'entry' "
        "ORDER BY duration_ns DESC, timestamp_ns, collector_id, sequence LIMIT $row_limit",
        {"session_id": session_id, "row_limit": limit},
    )


def count_events(connection: duckdb.DuckDBPyConnection, session_ids: Sequence[str]) -> dict[str, int]:
    """Session id to how many events of it are stored; without those that have none."""
    found = connection.execute(
        "SELECT session_id, count(*) FROM uprobe_events WHERE list_contains(?::VARCHAR[], session_id) GROUP BY session_id",
        [list(session_ids)],
    ).fetchall()
    return dict(found)


def delete_events(connection: duckdb.DuckDBPyConnection, session_ids: Sequence[str]) -> None:
    """Removes the events and the progress of sessions; a job for ``Database.write``."""
    ids = [list(session_ids)]
    connection.execute("DELETE FROM uprobe_events WHERE list_contains(?::VARCHAR[], session_id)", ids)
    connection.execute("DELETE FROM collector_progress WHERE list_contains(?::VARCHAR[], session_id)", ids)


def _read(connection: duckdb.DuckDBPyConnection, statement: str, values: Mapping[str, object]) -> pa.Table:
    return connection.execute(statement, dict(values)).to_arrow_table().cast(SCHEMA)


def _progress_table(moved: Sequence[Progress]) -> pa.Table:
    rows = [
        {
            "collector_id": progress.collector_id,
            "session_id": progress.session_id,
            "last_sequence": progress.last_sequence,
            "stored": progress.stored,
            "queue_dropped": progress.queue_dropped,
            "ledger": ledger_text(replace(progress.ledger, unknown_intervals=())),
            "histogram": progress.histogram.to_bytes(),
            "snapshot_at_ns": progress.snapshot_at_ns,
            "ended": progress.status is not None,
            "status": progress.status or "",
            "reason_code": progress.reason_code,
        }
        for progress in moved
    ]
    return pa.Table.from_pylist(rows, schema=_PROGRESS)
