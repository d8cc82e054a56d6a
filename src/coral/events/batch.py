"""Events as Arrow record batches: the form in which they travel and are stored. Columns are named as UprobeEvent's fields."""

from __future__ import annotations

import functools
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
    kinds = events["kind"]
    plain = not kinds.any()  # returns only, as nearly all events are
    if plain:
        event_type = _same("return", size)
    else:
        is_entry = (kinds == RecordKind.ENTRY).astype("i4")
        event_type = pa.DictionaryArray.from_arrays(pa.array(is_entry), pa.array(["return", "entry"]))
    no_arguments, no_return, no_labels = _nothing(_room(size))
    return pa.RecordBatch.from_arrays(
        [
            pa.array(events["timestamp_ns"]),
            _same(origin.collector_id, size),
            _same(origin.agent_id, size),
            _same(origin.service_name, size),
            _same(origin.function_name, size),
            event_type,
            pa.array(events["duration_ns"]),
            pa.array(events["pid"]),
            pa.array(events["tid"]),
            no_arguments.slice(0, size),
            no_return.slice(0, size),
            no_labels.slice(0, size) if plain else _labels(events, origin.sites),
            pa.array(events["sequence"]),
        ],
        schema=SCHEMA,
    )


# Columns that hold one value throughout are made once for each power of two, and cut to length: making them is most of the
# cost of a batch otherwise.


def _room(size: int) -> int:
    return max(4096, 1 << (size - 1).bit_length()) if size else 4096


def _same(value: str, size: int) -> pa.DictionaryArray:
    """A column of one value."""
    return _column_of(value, _room(size)).slice(0, size)


@functools.lru_cache(maxsize=1024)
def _column_of(value: str, room: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(_zeros(room).slice(0, room), pa.array([value]))


@functools.lru_cache(maxsize=16)
def _zeros(room: int) -> pa.Array:
    """Numbers for rows, and one more for where the last row ends."""
    return pa.array(np.zeros(room + 1, "i4"))


@functools.lru_cache(maxsize=16)
def _nothing(room: int) -> tuple[pa.ListArray, pa.Array, pa.MapArray]:
    """Columns of no arguments, no return value and no labels."""
    none = pa.array([], pa.string())
    return (
        pa.ListArray.from_arrays(_zeros(room), pa.array([], _ARGUMENT), type=SCHEMA.field("args").type),
        pa.nulls(room, _RETURN),
        pa.MapArray.from_arrays(_zeros(room), none, none),
    )


def _labels(events: Array, sites: Sequence[Site]) -> pa.MapArray:
    """``exit`` and ``to`` for calls that left by a tail jump; empty for the rest."""
    tails = np.flatnonzero(events["kind"] == RecordKind.TAIL)
    targets = [site.to for site in sites] or [""]
    site_of = np.minimum(events["site"][tails], len(targets) - 1).astype("i4")
    named = np.array([bool(target) for target in targets])[site_of]
    per_event = np.zeros(len(events), "i4")
    per_event[tails] = 1 + named
    offsets = np.concatenate([[0], np.cumsum(per_event)]).astype("i4")
    # Which key each entry has, and which value: the first of a call is its exit, the second, if there is one, where to.
    second = offsets[tails][named] + 1
    keys, values = np.zeros(offsets[-1], "i4"), np.zeros(offsets[-1], "i4")
    keys[second], values[second] = 1, 1 + site_of[named]
    return pa.MapArray.from_arrays(
        pa.array(offsets),
        pa.array(["exit", "to"]).take(pa.array(keys)),
        pa.array(["tail_call", *targets]).take(pa.array(values)),
    )


_AROUND_BYTES = 16_384
"""Of an IPC stream beside the rows and the names: schema, headers, padding."""


def encode(table: pa.Table | pa.RecordBatch) -> bytes:
    """One Arrow IPC stream, schema included."""
    if not isinstance(table, pa.RecordBatch):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write(table)
        return bytes(sink.getvalue())
    # Memory that grows while it is written to is copied, and new to the process, several times over.
    names = sum(column.dictionary.nbytes for column in table.columns if isinstance(column, pa.DictionaryArray))
    buffer = pa.allocate_buffer(pa.ipc.get_record_batch_size(table) + 2 * names + _AROUND_BYTES)
    fixed = pa.FixedSizeBufferWriter(buffer)
    with pa.ipc.new_stream(fixed, table.schema) as writer:
        writer.write(table)
    return bytes(buffer.slice(0, fixed.tell()))


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
