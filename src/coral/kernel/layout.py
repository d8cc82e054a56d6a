"""The structures that the programs and the agent share, as numpy sees them. Each mirrors its namesake in probe.bpf.c; a test
compares them with the object's BTF. Records of the event ring are events/record.py's ``RECORD``.
"""

from __future__ import annotations

import enum

import numpy as np

MAX_SLOTS = 64

SLOT = np.dtype(
    [
        ("min_ns", "u8"),
        ("max_ns", "u8"),
        ("interval_ns", "u8"),
        ("burst_ns", "u8"),
        ("max_events", "u8"),
        ("sample_rate", "u4"),
        ("flags", "u4"),  # SlotFlag
    ]
)


class SlotFlag(enum.IntFlag):
    """What is special about a slot."""

    COUNT_ONLY = 1
    CLOSING = 2
    HELD = 4


COUNTERS = np.dtype(
    [
        (name, "u8")
        for name in (
            "entered", "returned", "no_return", "too_deep", "emitted", "filtered", "sampled_out", "rate_limited",
            "ring_lost", "orphan_returns", "unseen", "completed", "admitted", "arrival_ns",
        )
    ]
)  # fmt: skip

CALL_KEY = np.dtype([("place", "u8"), ("depth", "u8"), ("slot", "u4"), ("instance", "u4")])
CALL = np.dtype([("boot_ns", "u8"), ("goid", "u8"), ("pid", "u4"), ("tid", "u4")])
MEMBER_KEY = np.dtype([("slot", "u4"), ("pid", "u4")])
ACTIVE = np.dtype([("slots", "u8")])
MEMBER = np.dtype([("instance", "u4"), ("group", "u4")])
STATE = np.dtype([("control_lost", "u8"), ("members_lost", "u8"), ("next_instance", "u4"), ("pad", "u4")])


class ControlKind(enum.IntEnum):
    """What happened to a process."""

    FORK = 1
    EXEC = 2
    EXIT = 3


CONTROL = np.dtype(
    [
        ("boot_ns", "u8"),
        ("start_boot_ns", "u8"),  # of the child, for FORK
        ("kind", "u4"),  # ControlKind
        ("slot", "u4"),  # for FORK
        ("instance", "u4"),  # for FORK
        ("pid", "u4"),
        ("parent", "u4"),  # for FORK
        ("status", "i4"),  # for EXIT: as wait(2) gives it
        ("clone_flags", "u8"),  # for FORK
    ]
)
