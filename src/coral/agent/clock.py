"""The two clocks. Deadlines run on CLOCK_BOOTTIME, which nobody can set and which goes on while a host is suspended."""

from __future__ import annotations

import time


def boot_ns() -> int:
    """Now, on CLOCK_BOOTTIME: what the probe programs stamp their records with."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def wall_ns() -> int:
    """Now, in ns since the epoch."""
    return time.time_ns()


def boot_to_wall_ns() -> int:
    """What to add to a CLOCK_BOOTTIME stamp for wall clock, as of now."""
    before = boot_ns()
    wall = wall_ns()
    return wall - (before + boot_ns()) // 2
