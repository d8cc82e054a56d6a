"""What a batch adds to the progress of its collector."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from coral.colony.progress import Progress, Received, advance, receive
from coral.events.batch import SCHEMA, Origin, encode, to_batch
from coral.events.record import EVENT, RecordKind
from coral.model.ledger import Ledger
from coral.model.session import InstanceStatus, ReasonCode, Status
from coral.wire._generated.mesh.v1 import ebpf_pb2
from coral.wire.convert import ledger_to

START = Progress(collector_id="c", session_id="s")


def events(sequences: list[int], *, collector_id: str = "c", kind: RecordKind = RecordKind.RETURN) -> pa.RecordBatch:
    """Events whose durations are their sequences."""
    made = np.zeros(len(sequences), EVENT)
    made["sequence"] = made["duration_ns"] = sequences
    made["kind"] = kind
    return to_batch(made, Origin(collector_id=collector_id, agent_id="a", service_name="svc", function_name="f"))


def message(sequences: list[int], **fields: Any) -> ebpf_pb2.UprobeEventBatch:
    """A batch as an agent sends it."""
    given = {
        "arrow_ipc": encode(events(sequences)) if sequences else b"",
        "first_sequence": sequences[0] if sequences else 0,
        "last_sequence": sequences[-1] if sequences else 0,
        "ledger": ledger_to(Ledger(emitted=100)),
        "collector_id": "c",
        "status": "active",
    }
    return ebpf_pb2.UprobeEventBatch(**{**given, **fields})


def batch(sequences: list[int], **fields: Any) -> Received:
    """The same, checked."""
    return receive(message(sequences, **fields), collector_id="c", received_ns=7)


def summary(progress: Progress) -> tuple[int, int, int]:
    """How far it is, and what it counted."""
    return progress.last_sequence, progress.stored, progress.queue_dropped


@pytest.mark.parametrize(
    ("batches", "expected", "kept"),
    [
        ([[1, 2, 3], [4, 5]], (5, 5, 0), [1, 2, 3, 4, 5]),
        ([[1, 2, 3], [2, 3, 4]], (4, 4, 0), [1, 2, 3, 4]),
        ([[1, 2, 3], [1, 2]], (3, 3, 0), [1, 2, 3]),
        ([[3, 4]], (4, 2, 2), [3, 4]),
        ([[1, 2], [5, 6], [3, 4]], (6, 4, 2), [1, 2, 5, 6]),
        ([[1, 3, 7]], (7, 3, 4), [1, 3, 7]),
        ([[]], (0, 0, 0), []),
    ],
)
def test_each_sequence_once(batches: list[list[int]], expected: tuple[int, int, int], kept: list[int]) -> None:
    """What overlaps is trimmed, what is missing is counted, and every sequence up to the last is one or the other."""
    progress, table = advance(START, [batch(sequences) for sequences in batches])
    assert summary(progress) == expected
    assert table["sequence"].to_pylist() == kept
    assert progress.last_sequence == progress.stored + progress.queue_dropped
    one_by_one = START
    for sequences in batches:
        one_by_one, _ = advance(one_by_one, [batch(sequences)])
    assert summary(one_by_one) == expected


def test_retried_commit_changes_nothing() -> None:
    """The progress that went in is as it was, so a failed transaction can be tried again."""
    first, _ = advance(START, [batch([1, 2])])
    counts = first.histogram.counts.copy()
    again = [advance(first, [batch([3, 4])])[0] for _ in range(2)]
    assert summary(again[0]) == summary(again[1]) == (4, 4, 0)
    assert (first.histogram.counts == counts).all()
    assert again[0].histogram.total_ns == 10


def test_final_batch() -> None:
    """The final batch closes the ledger, and what the agent numbered but never sent is dropped."""
    ledger = ledger_to(Ledger(entered=9, returned=9, emitted=9))
    last = batch([], final=True, status="expired", reason_code="deadline", last_sequence=9, ledger=ledger)
    progress, _ = advance(START, [batch([1, 2, 3]), last])
    assert summary(progress) == (9, 3, 6)
    assert (progress.status, progress.reason_code) == (Status.EXPIRED, ReasonCode.DEADLINE)
    assert progress.whole_ledger == Ledger(entered=9, returned=9, emitted=9, stored=3, queue_dropped=6, final=True)
    assert progress.whole_ledger.balanced


def test_late_snapshots_count_for_nothing() -> None:
    """A snapshot that a detour delivered after a newer one changes no counter, and none does after the final one."""
    newer, older = (
        ledger_to(Ledger(entered=20, returned=20, emitted=20)),
        ledger_to(Ledger(entered=10, returned=9, emitted=9)),
    )
    progress, _ = advance(START, [batch([1], ledger=newer), batch([2], ledger=older)])
    assert (progress.ledger.entered, progress.ledger.returned, progress.last_sequence) == (20, 20, 2)
    final, _ = advance(progress, [batch([], final=True, status="detached", ledger=newer, last_sequence=2)])
    again, _ = advance(final, [batch([], ledger=older)])
    assert (again.ledger, again.ledger.final, again.status) == (final.ledger, True, Status.DETACHED)


def test_call_over_a_suspended_night() -> None:
    """A call that was open while its host slept for twelve hours is an event as any other."""
    made = np.zeros(1, EVENT)
    made["sequence"], made["duration_ns"], made["kind"] = 1, 12 * 3600 * 10**9, RecordKind.RETURN
    night = to_batch(made, Origin(collector_id="c", agent_id="a", service_name="svc", function_name="f"))
    progress, table = advance(START, [batch([1], arrow_ipc=encode(night))])
    assert (table["duration_ns"].to_pylist(), progress.histogram.max_ns) == ([12 * 3600 * 10**9], 12 * 3600 * 10**9)


def test_what_cannot_be_stored_is_dropped() -> None:
    """Without space every new sequence is counted as dropped, and none is kept."""
    progress, table = advance(START, [batch([1, 2, 3]), batch([3, 4])], storing=False)
    assert summary(progress) == (4, 0, 4)
    assert table.num_rows == 0


def test_entries_have_no_duration() -> None:
    """Events of calls of which only the entry is seen are stored, and are not in the histogram."""
    only_entries = encode(events([1, 2], kind=RecordKind.ENTRY))
    progress, _ = advance(START, [batch([1, 2], arrow_ipc=only_entries), batch([3])])
    assert (progress.stored, progress.histogram.count, progress.histogram.total_ns) == (3, 1, 3)


def _renamed() -> bytes:
    return encode(pa.Table.from_batches([events([1])]).rename_columns([*SCHEMA.names[:-1], "number"]))


def _with_null() -> bytes:
    table = pa.Table.from_batches([events([1])])
    return encode(table.set_column(6, "duration_ns", pa.array([None], pa.uint64())))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"arrow_ipc": b"\x00" * 64}, "cannot be read"),
        ({"arrow_ipc": encode(events([1]))[:-20]}, "cannot be read"),
        ({"arrow_ipc": _renamed()}, "unexpected columns"),
        ({"arrow_ipc": _with_null()}, "nulls"),
        ({"arrow_ipc": encode(events([1], collector_id="d"))}, "another collector"),
        ({"arrow_ipc": encode(events([2, 1]))}, "do not rise"),
        ({"arrow_ipc": encode(events([1, 1]))}, "do not rise"),
        ({"arrow_ipc": encode(events([0, 1]))}, "do not rise"),
        ({"arrow_ipc": encode(events([1 << 60]))}, "longer than a probe can last"),
        ({"collector_id": "d"}, "of collector 'd'"),
        ({"last_sequence": 1 << 63}, "out of range"),
        ({"final": True}, "final with the status 'active'"),
        ({"final": True, "status": "expired", "ledger": None}, "without a ledger"),
    ],
)
def test_what_is_no_batch(fields: dict[str, Any], why: str) -> None:
    """Whatever an agent sends, it is stored as it should be or refused with the reason."""
    with pytest.raises(ValueError, match=why):
        batch([1], **fields)


def test_words_of_a_newer_agent() -> None:
    """A status, a reason or a kind of site that this version does not know costs neither events nor the ledger."""
    ledger = ledger_to(Ledger(entered=1, returned=1, emitted=1))
    sites = [ebpf_pb2.Site(offset=1, kind="entry"), ebpf_pb2.Site(offset=2, kind="landing")]
    instances = [ebpf_pb2.Instance(pid=1, status="paused", reason="It is full.", sites=sites)]
    words = batch([1], status="sleeping", reason_code="boredom", instances=instances)
    assert (words.status, words.reason_code, words.events.num_rows) == (None, ReasonCode.NONE, 1)
    (instance,) = words.instances or ()
    assert (instance.status, [site.kind for site in instance.sites]) == (InstanceStatus.FAILED, ["entry"])
    assert instance.reason == "It is full. Its agent, of another version, calls it 'paused'."
    final, _ = advance(START, [batch([1], final=True, status="hibernated", reason_code="winter", ledger=ledger)])
    assert (final.status, final.reason_code, final.stored, final.ledger.final) == (Status.DETACHED, ReasonCode.NONE, 1, True)


def test_fields_of_a_newer_agent() -> None:
    """Fields that this version does not know are passed over; those that an older agent does not send are as if empty."""
    newer = message([1], status="active")
    unknown = b"\xfa\x3f\x03abc"  # field 1023, three bytes
    read = receive(ebpf_pb2.UprobeEventBatch.FromString(newer.SerializeToString() + unknown), collector_id="c", received_ns=7)
    assert (read.last_sequence, read.events.num_rows) == (1, 1)
    older = receive(
        ebpf_pb2.UprobeEventBatch(arrow_ipc=encode(events([1])), first_sequence=1, last_sequence=1),
        collector_id="c",
        received_ns=7,
    )
    assert (older.status, older.reason_code, older.ledger, older.instances) == (None, ReasonCode.NONE, None, None)
    progress, _ = advance(START, [older])
    assert (progress.stored, progress.queue_dropped) == (1, 0)


def test_other_encodings_of_the_same() -> None:
    """Names may come as plain strings: what is stored has the one schema."""
    plain = pa.schema([(one.name, pa.string() if pa.types.is_dictionary(one.type) else one.type) for one in SCHEMA])
    received = batch([1, 2], arrow_ipc=encode(pa.Table.from_batches([events([1, 2])]).cast(plain)))
    assert received.events.schema == SCHEMA
    assert received.events["sequence"].to_pylist() == [1, 2]
