"""Events as Arrow batches."""

import numpy as np
import pyarrow as pa
import pytest

from coral.events import batch
from coral.events.record import RECORD, RecordKind, number
from coral.model.addresses import FileOffset
from coral.model.site import Site, SiteKind

SITES = (
    Site(offset=FileOffset(0), kind=SiteKind.ENTRY, reason=""),
    Site(offset=FileOffset(8), kind=SiteKind.TAIL, reason="", to="next"),
    Site(offset=FileOffset(9), kind=SiteKind.TAIL, reason=""),
)
ORIGIN = batch.Origin(collector_id="c1", agent_id="a1", service_name="shop", function_name="pay", sites=SITES)


def test_records_become_numbered_rows() -> None:
    """Records are numbered in their order, move to wall clock, and say how they left; nothing else is made up."""
    records = np.zeros(4, RECORD)
    records["boot_ns"] = [10, 11, 12, 13]
    records["duration_ns"] = [1, 2, 3, 0]
    records["pid"], records["tid"] = 7, [7, 8, 7, 7]
    records["kind"] = [RecordKind.RETURN, RecordKind.TAIL, RecordKind.TAIL, RecordKind.ENTRY]
    records["site"] = [0, 1, 2, 0]
    events = number(records, first_sequence=41, boot_to_wall_ns=1000)
    rows = list(batch.rows(batch.decode(batch.encode(batch.to_batch(events, ORIGIN)))))
    shared = {
        "collector_id": "c1",
        "agent_id": "a1",
        "service_name": "shop",
        "function_name": "pay",
        "pid": 7,
        "args": [],
        "return_value": None,
    }
    tail = {"exit": "tail_call"}
    assert rows == [
        {"sequence": 41, "timestamp_ns": 1010, "event_type": "return", "duration_ns": 1, "tid": 7, "labels": {}} | shared,
        {
            "sequence": 42,
            "timestamp_ns": 1011,
            "event_type": "return",
            "duration_ns": 2,
            "tid": 8,
            "labels": tail | {"to": "next"},
        }
        | shared,
        {"sequence": 43, "timestamp_ns": 1012, "event_type": "return", "duration_ns": 3, "tid": 7, "labels": tail} | shared,
        {"sequence": 44, "timestamp_ns": 1013, "event_type": "entry", "duration_ns": 0, "tid": 7, "labels": {}} | shared,
    ]


def test_no_bytes_are_no_events() -> None:
    """An empty message decodes to an empty table of the schema."""
    assert batch.decode(b"") == batch.SCHEMA.empty_table()


@pytest.mark.parametrize("data", [b"garbage", batch.encode(pa.table({"other": [1]}))])
def test_foreign_bytes_are_refused(data: bytes) -> None:
    """What is no stream of this schema raises ValueError."""
    with pytest.raises(ValueError):
        batch.decode(data)
