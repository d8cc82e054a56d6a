"""From the kernel's clock to wall clock."""

import time

from coral.agent.clock import WallOffset, boot_ns


def test_the_offset_holds_still() -> None:
    """As long as nobody sets the clock, every batch gets the same offset, and it is that of this host's clocks."""
    offset = WallOffset()
    first = offset.now_ns()
    assert {offset.now_ns() for _ in range(200)} == {first}
    assert abs(time.time_ns() - (boot_ns() + first)) < 50_000_000
