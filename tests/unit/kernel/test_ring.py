"""Reading a ring buffer in bulk, on memory that has the kernel's layout."""

from collections.abc import Iterator

import numpy as np
import pytest
from support.memory_ring import MemoryRing

from coral.events.record import RECORD, Array
from coral.kernel.ring import AT_ONCE

BUSY, DISCARDED = 1 << 31, 1 << 30


@pytest.fixture
def ring() -> Iterator[MemoryRing]:
    """Room for 85 records, so that every run wraps in the middle of one."""
    made = MemoryRing(4096)
    yield made
    made.close()


def numbered(first: int, count: int) -> Array:
    """Records that differ in every field that is read."""
    records = np.zeros(count, RECORD)
    for position, name in enumerate(("boot_ns", "duration_ns", "slot", "instance", "pid", "tid", "site", "kind")):
        records[name] = (np.arange(first, first + count) + position) % 251
    return records


def test_what_is_written_is_read_in_order_also_across_the_end_of_the_memory(ring: MemoryRing) -> None:
    """Every record comes once, whole and in order, for ten times as many as the ring holds."""
    for first in range(0, 850, 34):
        assert ring.write(numbered(first, 34)) == 34
        assert np.array_equal(ring.reader.drain(), numbered(first, 34))
    assert len(ring.reader.drain()) == 0


def test_what_is_not_submitted_holds_up_what_is_behind_it(ring: MemoryRing) -> None:
    """A record that its program still writes is not read, nor what comes after it; then all is, in order."""
    ring.write(numbered(0, 9), [0, 0, 0, BUSY, 0, BUSY, 0, 0, 0])
    assert np.array_equal(ring.reader.drain(), numbered(0, 3))
    assert len(ring.reader.drain()) == 0
    ring.submit()
    assert np.array_equal(ring.reader.drain(), numbered(3, 6))


def test_what_is_discarded_is_passed_over(ring: MemoryRing) -> None:
    """A record that its program gave up makes room and is not handed out, also where others are busy."""
    ring.write(numbered(0, 6), [DISCARDED, 0, DISCARDED, 0, BUSY | DISCARDED, 0])
    assert np.array_equal(ring.reader.drain(), numbered(0, 4)[[1, 3]])
    ring.submit()
    assert np.array_equal(ring.reader.drain(), numbered(5, 1))


def test_a_full_ring_takes_no_more_until_it_is_read(ring: MemoryRing) -> None:
    """What finds no room is not in the ring, which is what the kernel counts as lost; reading makes the room again."""
    assert ring.write(numbered(0, 100)) == 85
    assert np.array_equal(ring.reader.drain(), numbered(0, 85))
    assert ring.write(numbered(85, 15)) == 15


def test_a_drain_takes_a_bounded_number() -> None:
    """The rest of a long backlog is for the next drain."""
    ring = MemoryRing(1 << 22)
    ring.write(numbered(0, AT_ONCE + 5))
    assert np.array_equal(ring.reader.drain(), numbered(0, AT_ONCE))
    assert np.array_equal(ring.reader.drain(), numbered(AT_ONCE, 5))
    ring.close()
