"""Records, parted and put together."""

import numpy as np

from coral.events.record import RECORD, by_slot, joined


def test_records_are_parted_by_collector_in_their_order() -> None:
    """Each collector gets its own, in the order of the ring, whatever lies between them; nothing is left out."""
    randomness = np.random.default_rng(7)
    for slots in ([], [5] * 9, randomness.integers(0, 64, 5000), [63, 0, 63, 2]):
        records = np.zeros(len(slots), RECORD)
        records["slot"] = slots
        records["boot_ns"] = np.arange(len(slots))
        records["pid"] = np.arange(len(slots)) * 3
        parts = by_slot(records)
        assert [slot for slot, _ in parts] == sorted(set(map(int, slots)))
        for slot, part in parts:
            assert np.array_equal(part, records[records["slot"] == slot])


def test_parts_are_joined_in_order() -> None:
    """What was cut comes back as it was."""
    records = np.zeros(10, RECORD)
    records["boot_ns"] = np.arange(10)
    assert np.array_equal(joined([records[:3], records[3:4], records[4:]]), records)
    assert joined([records]) is records
