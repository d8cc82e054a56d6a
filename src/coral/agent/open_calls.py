"""Which of the calls that are still tracked can no longer return."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from coral.agent.collector import Collector
from coral.events.record import Array
from coral.model.errors import PermissionDenied
from coral.model.site import Pairing
from coral.procfs.files import ProcessGone
from coral.procfs.memory import MemoryFault, read_memory
from coral.procfs.stat import read_stat

_STATUS_AND_GOID = struct.Struct("<IIQ")
_DEAD = 6
"""``_Gdead`` of runtime/runtime2.go: a goroutine that ended, and is not used again yet."""


def proven_gone(collector: Collector, keys: Array, values: Array) -> npt.NDArray[np.bool_]:
    """Which calls are gone, because their process, their goroutine or, outside of Go, their thread has ended.

    A goroutine is not bound to a thread, so the end of the thread that entered proves nothing there. Blocking.

    Args:
        collector: Whose calls they are.
        keys: Their keys, of dtype ``CALL_KEY``.
        values: What was noted at their entry, of dtype ``CALL``.
    """
    living = {tracked.number: tracked for tracked in list(collector.tracked.values()) if tracked.group is not None}

    @cache
    def thread_start_ns(pid: int, tid: int) -> int | None:
        try:
            return read_stat(tid, proc=Path("/proc", str(pid), "task")).start_time_ns
        except ProcessGone:
            return None

    @cache
    def goroutine_now(pid: int, place: int, goid_offset: int) -> tuple[int, int] | None:
        """Status and number of whatever goroutine is at a place now; None when it cannot be read."""
        try:
            status, _, goid = _STATUS_AND_GOID.unpack(read_memory(pid, place + goid_offset - 8, _STATUS_AND_GOID.size))
        except (ProcessGone, MemoryFault, PermissionDenied):
            return None
        return status, goid

    def goroutine_gone(pid: int, place: int, goid_offset: int, goid: int) -> bool:
        # Memory of goroutines is never given back (runtime/proc.go: allgs), so what is there is a goroutine, this or another.
        now = goroutine_now(pid, place, goid_offset) if goid and goid_offset else None
        return now is not None and (now[0] == _DEAD or now[1] != goid)

    def gone(key: Array, value: Array) -> bool:
        tracked = living.get(int(key["instance"]))
        plan = tracked.group.plan if tracked is not None and tracked.group is not None else None
        goroutine = plan is not None and plan.pairing is Pairing.GO
        pid, entered_ns = int(value["pid"]), int(value["boot_ns"])
        started_ns = thread_start_ns(pid, pid if goroutine else int(value["tid"]))
        # A thread that started after the call entered is another one that got its number.
        if started_ns is None or started_ns > entered_ns:
            return True
        return plan is not None and goroutine and goroutine_gone(pid, int(key["place"]), plan.goid_offset, int(value["goid"]))

    return np.array([gone(key, value) for key, value in zip(keys, values, strict=True)], dtype=np.bool_)
