"""Prints the result of an SQL query."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from coral.cli.listings import emit_items
from coral.cli.options import Globals
from coral.cli.output import emit, narrate
from coral.cli.tables import emit_table
from coral.cli.times import rfc3339
from coral.client.colony import ColonyClient
from coral.model.text import printable

_PLAN = ["explain_key", "explain_value"]
"""Columns of what DuckDB answers to EXPLAIN: a drawing of several lines in one cell."""


async def show_query(options: Globals, sql: str) -> None:
    """Runs one statement on the colony and prints its rows."""
    async with ColonyClient(options.endpoint()) as colony:
        table, truncated = await colony.query_database(sql)
    if options.form == "table":
        names = [str(name) for name in table.schema.names]
        rows = [[_text(value) for value in row] for row in _rows(table)]
        numeric = [field.name for field in table.schema if _is_number(field.type)]
        if names == _PLAN:
            emit("".join(f"{printable(line)}\n" for row in rows for line in row[1].splitlines()))
        elif names:
            emit_table(names, rows, right=numeric, color=options.color)
    else:
        emit_items(options, [dict(zip(table.schema.names, row, strict=True)) for row in _rows(table)])
    if truncated:
        narrate(f"Only the first {table.num_rows:,} rows are shown: add a LIMIT, or aggregate.")


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Each row as values that JSON has."""
    columns: list[Iterable[Any]] = [_values(column) for column in table.columns]
    yield from zip(*columns, strict=True)


def _values(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        # As integers: datetime has no nanoseconds, and a time zone would need a database of them.
        scale = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[column.type.unit]
        return [
            None if value is None else rfc3339(value * scale, decimals=9) for value in column.cast(pa.int64()).to_pylist()
        ]
    return [_plain(value) for value in column.to_pylist(maps_as_pydicts="lossy")]


def _plain(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            return base64.b64encode(value).decode()
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case dict():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
    return value


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
