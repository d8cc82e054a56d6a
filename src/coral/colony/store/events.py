"""Events and the progress of their collectors, as the events file keeps them. Rows go in and out as Arrow."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coral.colony.progress import MAX_SEQUENCE, Progress
from coral.colony.store.documents import ledger_of, ledger_text
from coral.colony.store.sources import Source, insert_sources, sources_of
from coral.events.batch import SCHEMA
from coral.events.histogram import Histogram
from coral.model.session import ReasonCode, Status

_COLUMNS = ", ".join(f'"{name}"' for name in SCHEMA.names)
_DETAILS = ["args", "return_value", "labels"]
_STORED = ["timestamp_ns", "duration_ns", "pid", "tid", "sequence", *_DETAILS]
_WANTED = pa.schema([("source", pa.uint32()), ("place", pa.uint32()), ("upto", pa.uint64())])
_PAIRS = pa.list_(pa.struct([pa.field("key", pa.string(), nullable=False), ("value", pa.string())]))
DELETED_AT_ONCE = 500_000
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What one transaction adds.

    Attributes:
        events: Session id to the events to insert, of ``SCHEMA``.
        new: The progress of the collectors that have no row yet.
        moved: That of the others.
        slowest: Session id to its slowest events as ``events.batch.rows`` gives them, where they changed.
    """

    events: Mapping[str, pa.Table]
    new: Sequence[Progress]
    moved: Sequence[Progress]
    slowest: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


def commit_events(
    connection: duckdb.DuckDBPyConnection, commit: Commit, *, known: Mapping[Source, int] | None = None
) -> dict[Source, int]:
    """Inserts events and moves the progress of their collectors; the job of one transaction.

    Args:
        connection: The writer's.
        commit: What to write.
        known: The sources that the file is known to have, with their numbers.

    Returns:
        The sources that are new in it.

    Raises:
        ValueError: The names in the events of a session differ more than they can.
    """
    numbered = _insert_events(connection, commit.events, known or {})
    if commit.new:
        connection.register("new_progress", _progress_table(commit.new))
        connection.execute("INSERT INTO collector_progress SELECT * FROM new_progress")
        connection.unregister("new_progress")
    if commit.moved:
        connection.register("moved", _progress_table(commit.moved))
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
    for session_id, events in commit.slowest.items():
        connection.execute("DELETE FROM session_results WHERE session_id = ?", [session_id])
        connection.execute("INSERT INTO session_results VALUES (?, ?)", [session_id, json.dumps(list(events))])
    return numbered


def _insert_events(
    connection: duckdb.DuckDBPyConnection, events: Mapping[str, pa.Table], known: Mapping[Source, int]
) -> dict[Source, int]:
    found = [(*sources_of(table, session_id), table) for session_id, table in events.items()]
    numbered = insert_sources(connection, [source for sources, _, _ in found for source in sources], known)
    plain, detailed = [], []
    for sources, places, table in found:
        numbers = np.array([numbered[source] if source in numbered else known[source] for source in sources], "u4")
        rows = table.select(_STORED).add_column(1, "source", pa.array(numbers[places]))
        details = _has_details(rows)
        if details is None:
            plain.append(rows.drop_columns(_DETAILS))
        else:
            plain.append(rows.drop_columns(_DETAILS).filter(pc.invert(details)))
            detailed.append(rows.filter(details))
    for name, tables in (("plain_events", plain), ("detailed_events", detailed)):
        if tables:
            connection.register("new_events", pa.concat_tables(tables))
            connection.execute(f"INSERT INTO {name} SELECT * FROM new_events")
            connection.unregister("new_events")
    return numbered


def _has_details(rows: pa.Table) -> pa.ChunkedArray | None:
    """Which events have values or labels; None if none has."""
    if rows["return_value"].null_count == rows.num_rows and not any(
        map(_entries, rows["args"].chunks + rows["labels"].chunks)
    ):
        return None
    # A map is a list of pairs, and only as one can it be measured.
    counts = [pc.fill_null(pc.list_value_length(one), 0) for one in (rows["args"], rows["labels"].cast(_PAIRS))]
    details = pc.or_(pc.greater(counts[0], 0), pc.greater(counts[1], 0))
    return pc.or_(details, pc.is_valid(rows["return_value"]))


def _entries(chunk: pa.ListArray | pa.MapArray) -> int:
    """How many values lie between the first and the last offset of a list or map."""
    return int(chunk.offsets[-1].as_py() - chunk.offsets[0].as_py())


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
    sources = connection.execute(
        "SELECT source, collector_id FROM event_sources WHERE session_id = ?", [session_id]
    ).fetchall()
    collector_ids = sorted({collector_id for _, collector_id in sources})
    places = {collector_id: place for place, collector_id in enumerate(collector_ids)}
    wanted = [(source, places[one], upto[one]) for source, one in sources if one in upto]
    where = ["sequence <= upto"]
    values: dict[str, object] = {"row_limit": limit}
    if start_ns is not None:
        where.append("timestamp_ns >= $start_ns")
        values["start_ns"] = start_ns
    if end_ns is not None:
        where.append("timestamp_ns < $end_ns")
        values["end_ns"] = end_ns
    if after is not None:
        # The first term alone lets DuckDB skip row groups by their bounds.
        where.append(
            "timestamp_ns >= $after_ns AND (timestamp_ns, place, sequence) > "
            "($after_ns::BIGINT, $after_place::UINTEGER, $after_sequence::UBIGINT)"
        )
        values |= {
            "after_ns": after.timestamp_ns,
            "after_place": bisect_left(collector_ids, after.collector_id),
            "after_sequence": after.sequence,
        }
    return _read(connection, wanted, where, order="timestamp_ns, place, sequence", values=values)


def following(connection: duckdb.DuckDBPyConnection, *, collector_id: str, after: int, limit: int) -> pa.Table:
    """Events of one collector after a sequence, in that order."""
    found = connection.execute("SELECT source FROM event_sources WHERE collector_id = ?", [collector_id]).fetchall()
    return _read(
        connection,
        [(source, 0, MAX_SEQUENCE) for (source,) in found],
        ["sequence > $after"],
        order="sequence",
        values={"after": after, "row_limit": limit},
    )


def slowest(connection: duckdb.DuckDBPyConnection, session_id: str) -> list[dict[str, Any]]:
    """The events with the longest durations, longest first, as ``events.batch.rows`` gives them."""
    row = connection.execute("SELECT slowest FROM session_results WHERE session_id = ?", [session_id]).fetchone()
    return json.loads(row[0]) if row else []


def count_events(connection: duckdb.DuckDBPyConnection, session_ids: Sequence[str]) -> dict[str, int]:
    """Session id to how many events of it are stored; without those that have none, or none any more."""
    found = connection.execute(
        """
        SELECT session_id, sum(stored)::BIGINT FROM collector_progress
        WHERE list_contains(?::VARCHAR[], session_id) AND session_id IN (SELECT session_id FROM event_sources)
        GROUP BY session_id
        """,
        [list(session_ids)],
    ).fetchall()
    return dict(found)


def sessions_with_events(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The ids of the sessions that have events, oldest first."""
    return [row[0] for row in connection.execute("SELECT DISTINCT session_id FROM event_sources ORDER BY 1").fetchall()]


def delete_events(connection: duckdb.DuckDBPyConnection, session_id: str, *, limit: int = DELETED_AT_ONCE) -> int | None:
    """Removes some events of a session; a job for ``Database.write``, to be repeated: whole sessions are too much for one.

    Args:
        connection: The writer's.
        session_id: Whose.
        limit: From so many rows at most.

    Returns:
        How many went; None once all have. Its sources are gone then too; its progress and results are left.
    """
    sources = connection.execute("SELECT source FROM event_sources WHERE session_id = ?", [session_id]).fetchall()
    numbers = [source for (source,) in sources]
    if not numbers:
        return None
    bounds = [min(numbers), max(numbers), numbers]
    mine = "source BETWEEN ? AND ? AND list_contains(?::UINTEGER[], source)"
    for table in ("plain_events", "detailed_events"):
        # Numbers of rows change when DuckDB tidies up, so each time from the first one that is left.
        (first,) = connection.execute(f"SELECT min(rowid) FROM {table} WHERE {mine}", bounds).fetchone() or (None,)
        if first is not None:
            (deleted,) = connection.execute(
                f"DELETE FROM {table} WHERE {mine} AND rowid BETWEEN ? AND ?", [*bounds, first, first + limit - 1]
            ).fetchone() or (0,)
            return int(deleted)
    connection.execute("DELETE FROM event_sources WHERE session_id = ?", [session_id])
    return None


def delete_results(connection: duckdb.DuckDBPyConnection, session_ids: Sequence[str]) -> None:
    """Removes what is known of sessions whose events are gone; a job for ``Database.write``."""
    ids = [list(session_ids)]
    connection.execute("DELETE FROM collector_progress WHERE list_contains(?::VARCHAR[], session_id)", ids)
    connection.execute("DELETE FROM session_results WHERE list_contains(?::VARCHAR[], session_id)", ids)


def _read(
    connection: duckdb.DuckDBPyConnection,
    sources: Sequence[tuple[int, int, int]],
    where: Sequence[str],
    *,
    order: str,
    values: Mapping[str, object],
) -> pa.Table:
    """Reads events of some sources, each with its place in the order and the highest sequence that counts."""
    columns = zip(*sources, strict=True) if sources else ((), (), ())
    wanted = pa.Table.from_arrays(
        [pa.array(column, of.type) for column, of in zip(columns, _WANTED, strict=True)], schema=_WANTED
    )
    # The limit stands in each part, so that DuckDB stops reading row groups that lie behind what it has already.
    parts = " UNION ALL ".join(
        f"(SELECT timestamp_ns, source, duration_ns, pid, tid, sequence, {details}, place "
        f"FROM {table} JOIN wanted USING (source) WHERE {' AND '.join(where)} ORDER BY {order} LIMIT $row_limit)"
        for table, details in (
            ("plain_events", "NULL AS args, NULL AS return_value, NULL AS labels"),
            ("detailed_events", ", ".join(_DETAILS)),
        )
    )
    connection.register("wanted", wanted)
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM ({parts}) JOIN event_sources USING (source) ORDER BY {order} LIMIT $row_limit", dict(values)
    ).to_arrow_table()
    return found.cast(SCHEMA)


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
