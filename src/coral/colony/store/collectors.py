"""Collectors and their instances, as the control file keeps them: jobs for ``Database.write``, for many at a time.

A session on a hundred hosts has a hundred collectors and a thousand instances: a statement for each of them took longer than
the hosts needed to attach.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from coral.colony.store.documents import intervals_text, ledger_text
from coral.model.session import Collector, Instance

_COLLECTOR = pa.schema(
    [
        (name, pa.string())
        for name in (
            "collector_id", "session_id", "agent_id", "boot_id", "status", "reason", "reason_code", "ledger",
            "unknown_intervals",
        )
    ]
)  # fmt: skip
_INSTANCE = pa.schema(
    [
        ("collector_id", pa.string()),
        ("pid", pa.int32()),
        ("start_time_ns", pa.int64()),
        ("executable", pa.string()),
        ("build_id", pa.string()),
        ("image_id", pa.string()),
        ("function_name", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("method", pa.string()),
        ("sites", pa.list_(pa.struct([("offset", pa.uint64()), ("kind", pa.string()), ("reason", pa.string())]))),
        ("exit_status", pa.int32()),
    ]
)
_PLAIN = [name for name in _INSTANCE.names if name not in ("collector_id", "sites")]


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorRow:
    """A collector with what only the table knows of it.

    Attributes:
        session_id: Whose it is.
        boot_id: The life of its agent that it belongs to.
        collector: It; its instances are not written with it.
    """

    session_id: str
    boot_id: str
    collector: Collector


def put_collectors(connection: duckdb.DuckDBPyConnection, rows: Sequence[CollectorRow]) -> None:
    """Inserts or replaces the rows of collectors."""
    _replace(
        connection,
        "debug_collectors",
        [row.collector.collector_id for row in rows],
        pa.Table.from_pylist(
            [
                {
                    "collector_id": row.collector.collector_id,
                    "session_id": row.session_id,
                    "agent_id": row.collector.agent_id,
                    "boot_id": row.boot_id,
                    "status": row.collector.status,
                    "reason": row.collector.reason,
                    "reason_code": row.collector.reason_code,
                    "ledger": ledger_text(row.collector.ledger),
                    "unknown_intervals": intervals_text(row.collector.ledger.unknown_intervals),
                }
                for row in rows
            ],
            schema=_COLLECTOR,
        ),
    )


def put_instances(connection: duckdb.DuckDBPyConnection, instances: Mapping[str, Iterable[Instance]]) -> None:
    """Replaces the rows of the instances of collectors: collector id to its instances."""
    rows = [
        {
            "collector_id": collector_id,
            **{name: getattr(instance, name) for name in _PLAIN},
            "sites": [{"offset": site.offset, "kind": site.kind, "reason": site.reason} for site in instance.sites],
        }
        for collector_id, those in instances.items()
        for instance in those
    ]
    _replace(connection, "debug_instances", list(instances), pa.Table.from_pylist(rows, schema=_INSTANCE))


def _replace(connection: duckdb.DuckDBPyConnection, table: str, collector_ids: list[str], rows: pa.Table) -> None:
    connection.execute(f"DELETE FROM {table} WHERE list_contains(?::VARCHAR[], collector_id)", [collector_ids])
    if rows.num_rows:
        connection.register("new_rows", rows)
        connection.execute(f"INSERT INTO {table} SELECT * FROM new_rows")
        connection.unregister("new_rows")
