"""The layouts that events have before they are Arrow. ``RECORD`` mirrors ``struct record`` of kernel/probe.bpf.c."""

from __future__ import annotations

import enum
from collections.abc import Sequence
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
    events = np.empty(len(records), EVENT)
    events["sequence"] = np.arange(first_sequence, first_sequence + len(records), dtype="u8")
    events["timestamp_ns"] = records["boot_ns"]
    events["timestamp_ns"] += boot_to_wall_ns
    for name in ("duration_ns", "pid", "tid", "site", "kind"):
        events[name] = records[name]
    return events


def by_slot(records: Array) -> list[tuple[int, Array]]:
    """Parts records by the collector that they are of, in one pass however many there are.

    Args:
        records: Of dtype ``RECORD``, in the order of the ring.

    Returns:
        Slots, in rising order, each with its records in the order of the ring.
    """
    if not len(records):
        return []
    slots = records["slot"]
    if slots.min() == slots.max():
        return [(int(slots[0]), records)]
    small = slots.astype("u1")  # there are 64 at most; numpy sorts bytes in one pass
    order = np.argsort(small, kind="stable")
    ordered = records.view(f"V{RECORD.itemsize}").take(order).view(RECORD)
    ends = np.cumsum(np.bincount(small))
    found = np.flatnonzero(np.diff(ends, prepend=0))
    starts = np.concatenate([[0], ends[found][:-1]])
    return [(int(slot), ordered[start : ends[slot]]) for slot, start in zip(found, starts, strict=True)]


def joined(parts: Sequence[Array]) -> Array:
    """One array of what the parts hold, in order. As bytes: numpy copies structures a field at a time.

    Args:
        parts: Of one dtype, each contiguous; at least one. A single one is returned as it is.
    """
    if len(parts) == 1:
        return parts[0]
    layout = parts[0].dtype
    whole: Array = np.concatenate([part.view(f"V{layout.itemsize}") for part in parts]).view(layout)
    return whole
