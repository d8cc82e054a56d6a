"""The layouts that events have before they are Arrow. ``RECORD`` mirrors ``struct record`` of kernel/probe.bpf.c."""

from __future__ import annotations

import enum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.void]


class RecordKind(enum.IntEnum):
    """What a record reports."""

    RETURN = 0
    TAIL = 1
    ENTRY = 2


RECORD = np.dtype(
    [
        ("boot_ns", "u8"),  # CLOCK_BOOTTIME when the call returned
        ("duration_ns", "u8"),
        ("slot", "u4"),  # which collector
        ("instance", "u4"),  # which process, numbered by the agent
        ("pid", "i4"),
        ("tid", "i4"),
        ("site", "u2"),  # index into the plan's sites
        ("kind", "u1"),  # RecordKind
        ("pad", "u1", (5,)),
    ]
)
"""One event as the kernel writes it, without the ring's own header."""

EVENT = np.dtype(
    [
        ("sequence", "u8"),
        ("timestamp_ns", "i8"),  # wall clock
        ("duration_ns", "u8"),
        ("pid", "i4"),
        ("tid", "i4"),
        ("site", "u2"),
        ("kind", "u1"),
        ("pad", "u1", (5,)),
    ]
)
"""One event as the agent keeps it."""


def number(records: Array, *, first_sequence: int, boot_to_wall_ns: int) -> Array:
    """Turns one collector's records into events.

    Args:
        records: Of dtype ``RECORD``, in the order of the ring.
        first_sequence: Of the first of them.
        boot_to_wall_ns: What to add to CLOCK_BOOTTIME for wall clock.

    Returns:
        Events of dtype ``EVENT``, in the same order.
    """
    events = np.zeros(len(records), EVENT)
    events["sequence"] = np.arange(first_sequence, first_sequence + len(records), dtype="u8")
    events["timestamp_ns"] = records["boot_ns"].astype("i8") + boot_to_wall_ns
    for name in ("duration_ns", "pid", "tid", "site", "kind"):
        events[name] = records[name]
    return events
