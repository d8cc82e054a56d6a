"""Events as Arrow record batches: the form in which they travel and are stored. Columns are named as UprobeEvent's fields."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from coral.events.record import Array, RecordKind
from coral.model.site import Site

_NAME = pa.dictionary(pa.int32(), pa.string())
_ARGUMENT = pa.struct([("name", pa.string()), ("type", pa.string()), ("value", pa.string())])
_RETURN = pa.struct([("type", pa.string()), ("value", pa.string()), ("is_error", pa.bool_()), ("error_message", pa.string())])

SCHEMA = pa.schema(
    [
        ("timestamp_ns", pa.int64()),
        ("collector_id", _NAME),
        ("agent_id", _NAME),
        ("service_name", _NAME),
        ("function_name", _NAME),
        ("event_type", _NAME),
        ("duration_ns", pa.uint64()),
        ("pid", pa.int32()),
        ("tid", pa.int32()),
        ("args", pa.list_(_ARGUMENT)),
        ("return_value", _RETURN),
        ("labels", pa.map_(pa.string(), pa.string())),
        ("sequence", pa.uint64()),
    ]
)

_PLAIN = pa.schema([(field.name, pa.string() if field.type == _NAME else field.type) for field in SCHEMA])
"""The same without dictionaries, whose values become Python objects thirty times as fast."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What all events of one collector have in common."""

    collector_id: str
    agent_id: str
    service_name: str
    function_name: str
    sites: Sequence[Site] = ()


def to_batch(events: Array, origin: Origin) -> pa.RecordBatch:
    """One record batch of events.

    Args:
        events: Of dtype ``EVENT``.
        origin: What they have in common; its ``sites`` say where a tail jump went.

    Returns:
        A batch of ``SCHEMA``, in the same order.
    """
    size = len(events)
    constant = pa.array(np.zeros(size, "i4"))

    def same(value: str) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(constant, pa.array([value]))

    is_entry = (events["kind"] == RecordKind.ENTRY).astype("i4")
    event_type = pa.DictionaryArray.from_arrays(pa.array(is_entry), pa.array(["return", "entry"]))
    no_arguments = pa.ListArray.from_arrays(
        pa.array(np.zeros(size + 1, "i4")), pa.array([], _ARGUMENT), type=SCHEMA.field("args").type
    )
    return pa.RecordBatch.from_arrays(
        [
            pa.array(events["timestamp_ns"]),
            same(origin.collector_id),
            same(origin.agent_id),
            same(origin.service_name),
            same(origin.function_name),
            event_type,
            pa.array(events["duration_ns"]),
            pa.array(events["pid"]),
            pa.array(events["tid"]),
            no_arguments,
            pa.nulls(size, _RETURN),
            _labels(events, origin.sites),
            pa.array(events["sequence"]),
        ],
        schema=SCHEMA,
    )


def _labels(events: Array, sites: Sequence[Site]) -> pa.MapArray:
    """``exit`` and ``to`` for calls that left by a tail jump; empty for the rest."""
    tails = np.flatnonzero(events["kind"] == RecordKind.TAIL)
    named = np.array([bool(site.to) for site in sites] or [False])
    site_of = np.minimum(events["site"][tails], len(named) - 1)
    per_event = np.zeros(len(events), "i4")
    per_event[tails] = 1 + named[site_of]
    offsets = np.concatenate([[0], np.cumsum(per_event)]).astype("i4")
    keys: list[str] = []
    values: list[str] = []
    for index in site_of:  # tail exits are rare; a list per exit is affordable here
        keys.append("exit")
        values.append("tail_call")
        if named[index]:
            keys.append("to")
            values.append(sites[index].to)
    return pa.MapArray.from_arrays(pa.array(offsets), pa.array(keys, pa.string()), pa.array(values, pa.string()))


def encode(table: pa.Table | pa.RecordBatch) -> bytes:
    """One Arrow IPC stream, schema included."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return bytes(sink.getvalue())


def decode(data: bytes) -> pa.Table:
    """The table of one IPC stream; an empty table of ``SCHEMA`` for no bytes.

    Raises:
        ValueError: The bytes are not one, or its columns are not those of ``SCHEMA``. (pyarrow's errors are ValueErrors.)
    """
    if not data:
        return SCHEMA.empty_table()
    with pa.ipc.open_stream(data) as reader:
        table = reader.read_all()
    if table.schema.names != SCHEMA.names:
        raise ValueError(f"unexpected columns {table.schema.names}")
    return table


def rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Each event as a dictionary of plain values, for the edges: ``labels`` a dict, ``args`` a list of dicts."""
    for row in table.cast(_PLAIN).to_pylist():
        row["labels"] = dict(row["labels"] or ())
        row["args"] = row["args"] or []
        yield row
