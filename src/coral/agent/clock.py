"""The two clocks. Deadlines run on CLOCK_BOOTTIME, which nobody can set and which goes on while a host is suspended."""

from __future__ import annotations

import time

_STEP_NS = 50_000
_READINGS = 5


def boot_ns() -> int:
    """Now, on CLOCK_BOOTTIME: what the probe programs stamp their records with."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def wall_ns() -> int:
    """Now, in ns since the epoch."""
    return time.time_ns()


class WallOffset:
    """What to add to a CLOCK_BOOTTIME stamp for wall clock.

    The same number for as long as the clocks keep step, so that events keep their order: a fresh measurement for every batch
    would differ by a few µs from the last one, and swap neighbours.
    """

    def __init__(self) -> None:
        self._offset_ns = _measure()

    def now_ns(self) -> int:
        """The offset as of now; a new one once the wall clock was set, or slewed away."""
        measured = _measure()
        if abs(measured - self._offset_ns) > _STEP_NS:
            self._offset_ns = measured
        return self._offset_ns


def _measure() -> int:
    """The offset by the tightest of some readings: a preemption between two clocks would count as a difference."""

    def reading() -> tuple[int, int]:
        before = boot_ns()
        wall = wall_ns()
        after = boot_ns()
        return after - before, wall - (before + after) // 2

    return min(reading() for _ in range(_READINGS))[1]
