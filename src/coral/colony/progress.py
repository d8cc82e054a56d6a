"""How far a collector got: what a batch adds to it. Pure values, so that what is committed can be thrown away and retried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coral.events.batch import SCHEMA, decode
from coral.events.histogram import Histogram
from coral.model.ledger import Ledger
from coral.model.session import Instance, ReasonCode, Status
from coral.wire._generated.mesh.v1 import ebpf_pb2
from coral.wire.convert import instance_from, ledger_from

MAX_SEQUENCE = 1 << 62
"""Far beyond what a collector can reach, far below where sums of counters leave 64 bits."""

MAX_DURATION_NS = 31 * 86_400 * 1_000_000_000
"""Sessions last at most 600 s, but a call that was open while its host was suspended lasted as long as that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A checked batch of one collector.

    Attributes:
        events: Of ``SCHEMA``, strictly rising in sequence; may be empty.
        last_sequence: What the agent says it reached.
        ledger: The kernel's side of the counters at that time; None when the batch had none.
        instances: The processes at that time; None when the batch had none.
        final: Whether nothing follows.
        status: Of the collector, as the agent says; None when it says nothing.
        reason_code: Likewise.
        received_ns: Wall clock when it came in.
    """

    events: pa.Table
    last_sequence: int
    ledger: Ledger | None
    instances: tuple[Instance, ...] | None
    final: bool
    status: Status | None
    reason_code: ReasonCode
    received_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the events file says of one collector; written in the same transaction as the events that it covers.

    Attributes:
        collector_id: Which.
        session_id: Whose.
        last_sequence: The highest sequence dealt with; reading resumes after it.
        stored: Rows inserted.
        queue_dropped: Sequences that were met as a gap, or could not be stored.
        ledger: The kernel's side of the counters, from the last snapshot; final once the final batch was dealt with.
        histogram: Of the durations of all completed calls stored. Never changed in place.
        snapshot_at_ns: Wall clock when the last snapshot came in; 0 when none has.
        status: What the final batch said; None before that.
        reason_code: Likewise.
    """

    collector_id: str
    session_id: str
    last_sequence: int = 0
    stored: int = 0
    queue_dropped: int = 0
    ledger: Ledger = Ledger()
    histogram: Histogram = field(default_factory=Histogram)
    snapshot_at_ns: int = 0
    status: Status | None = None
    reason_code: ReasonCode = ReasonCode.NONE

    @property
    def whole_ledger(self) -> Ledger:
        """Both sides of the counters."""
        return self.ledger.with_store(stored=self.stored, queue_dropped=self.queue_dropped)


def receive(batch: ebpf_pb2.UprobeEventBatch, *, collector_id: str, received_ns: int) -> Received:
    """Checks what an agent sent.

    Raises:
        ValueError: It is not a batch of ``collector_id`` that could be stored; says why.
    """
    if batch.collector_id not in ("", collector_id):
        raise ValueError(f"it is of collector {batch.collector_id!r}")
    if max(batch.first_sequence, batch.last_sequence) > MAX_SEQUENCE:
        raise ValueError("its sequences are out of range")
    status, reason_code = _words(batch)
    if batch.final and (status is None or not status.ended):
        raise ValueError(f"it is final with the status {batch.status!r}")
    if batch.final and not batch.HasField("ledger"):
        raise ValueError("it is final without a ledger")
    return Received(
        events=_checked(batch.arrow_ipc, collector_id),
        last_sequence=batch.last_sequence,
        ledger=ledger_from(batch.ledger, final=False) if batch.HasField("ledger") else None,
        instances=tuple(instance_from(instance) for instance in batch.instances) if batch.instances else None,
        final=batch.final,
        status=status,
        reason_code=reason_code,
        received_ns=received_ns,
    )


def _words(batch: ebpf_pb2.UprobeEventBatch) -> tuple[Status | None, ReasonCode]:
    """The status and the reason code of a batch.

    A newer agent may have words that this colony does not know. Such a status is as if there was none, and at the end an
    end without a further reason, so that the ledger that comes with it is not lost.
    """
    status = Status(batch.status) if batch.status in list(Status) else None
    if batch.final and batch.status and status is None:
        status = Status.DETACHED
    return status, ReasonCode(batch.reason_code) if batch.reason_code in list(ReasonCode) else ReasonCode.NONE


def _checked(data: bytes, collector_id: str) -> pa.Table:
    try:
        events = decode(data)
        if not events.num_rows:
            return SCHEMA.empty_table()
        events.validate(full=True)
        if events.schema != SCHEMA:
            events = events.cast(SCHEMA)
    except (pa.ArrowException, OSError, TypeError, NotImplementedError) as error:
        raise ValueError(f"its events cannot be read: {error}") from error
    for name in (*SCHEMA.names[:9], "sequence"):
        if events[name].null_count:
            raise ValueError(f"its column {name} has nulls")
    if pc.unique(events["collector_id"].combine_chunks()).to_pylist() != [collector_id]:
        raise ValueError("its events are of another collector")
    sequences = events["sequence"].to_numpy()
    if sequences[0] < 1 or sequences[-1] > MAX_SEQUENCE or (sequences[1:] <= sequences[:-1]).any():
        raise ValueError("its sequences do not rise")
    if pc.max(events["duration_ns"]).as_py() > MAX_DURATION_NS:
        raise ValueError("a duration is longer than a probe can last")
    return events


def advance(progress: Progress, batches: Sequence[Received], *, storing: bool = True) -> tuple[Progress, pa.Table]:
    """Adds batches, in the order in which they came.

    Args:
        progress: What the database holds.
        batches: What came in since.
        storing: False when events cannot be stored (no space): they are counted as dropped instead.

    Returns:
        The progress to be, and the events to insert with it: those not dealt with yet, each once.
    """
    last, dropped = progress.last_sequence, progress.queue_dropped
    fresh: list[pa.Table] = []
    for batch in batches:
        kept = batch.events
        reached = last
        if kept.num_rows:
            sequences = kept["sequence"].to_numpy()
            kept = kept.slice(int(np.searchsorted(sequences, last, side="right")))
            reached = max(last, int(sequences[-1]))
        if batch.final:
            # Nothing follows, so what the agent numbered and did not send is a gap too.
            reached = max(reached, batch.last_sequence)
        dropped += reached - last - (kept.num_rows if storing else 0)
        last = reached
        if storing and kept.num_rows:
            fresh.append(kept)
    table = pa.concat_tables(fresh).unify_dictionaries() if fresh else SCHEMA.empty_table()
    histogram = progress.histogram
    durations = _durations(table)
    if len(durations):
        histogram = Histogram()
        histogram.merge(progress.histogram)
        histogram.add(durations)
    ledger, snapshot_at_ns = progress.ledger, progress.snapshot_at_ns
    for batch in batches:
        # What a detour delivers late says nothing new: counters only rise, and nothing follows the final ones.
        late = progress.ledger.final or (batch.ledger is not None and batch.ledger.entered < ledger.entered)
        if batch.ledger is not None and (batch.final or not late):
            ledger, snapshot_at_ns = batch.ledger, batch.received_ns
    final = next((batch for batch in batches if batch.final), None)
    moved = replace(
        progress,
        last_sequence=last,
        stored=progress.stored + table.num_rows,
        queue_dropped=dropped,
        ledger=replace(ledger, final=progress.ledger.final or final is not None),
        histogram=histogram,
        snapshot_at_ns=snapshot_at_ns,
        status=final.status if final else progress.status,
        reason_code=final.reason_code if final else progress.reason_code,
    )
    return moved, table


def _durations(table: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """The durations of the completed calls; ``entry`` events have none."""
    durations: np.ndarray[tuple[int], np.dtype[np.uint64]] = table["duration_ns"].to_numpy()
    entries = [_entries(chunk) for chunk in table["event_type"].chunks]
    if all(found is None for found in entries):
        return durations
    kept = [
        np.ones(len(chunk), bool) if found is None else ~found
        for chunk, found in zip(table["event_type"].chunks, entries, strict=True)
    ]
    chosen: np.ndarray[tuple[int], np.dtype[np.uint64]] = durations[np.concatenate(kept)]
    return chosen


def _entries(types: pa.DictionaryArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]] | None:
    """Which events are ``entry`` events; None if none is. Looks at numbers, not at a text per event."""
    names = types.dictionary.to_pylist()
    if "entry" not in names:
        return None
    found = types.indices.to_numpy() == names.index("entry")
    return found if found.any() else None
