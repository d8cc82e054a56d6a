"""Which of the calls that are still tracked can no longer return."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from coral.agent.collector import Collector
from coral.events.record import Array
from coral.model.site import Pairing
from coral.procfs.files import ProcessGone
from coral.procfs.stat import read_stat


def proven_gone(collector: Collector, keys: Array, values: Array) -> npt.NDArray[np.bool_]:
    """Which calls are gone, because their process or, outside of Go, their thread has ended.

    A goroutine is not bound to a thread, so the end of the thread that entered proves nothing there. Blocking.

    Args:
        collector: Whose calls they are.
        keys: Their keys, of dtype ``CALL_KEY``.
        values: What was noted at their entry, of dtype ``CALL``.
    """
    living = {tracked.number: tracked for tracked in collector.tracked.values() if tracked.group is not None}

    @cache
    def thread_start_ns(pid: int, tid: int) -> int | None:
        try:
            return read_stat(tid, proc=Path("/proc", str(pid), "task")).start_time_ns
        except ProcessGone:
            return None

    def gone(instance: int, pid: int, tid: int, entered_ns: int) -> bool:
        tracked = living.get(instance)
        goroutine = tracked is not None and tracked.group is not None and tracked.group.plan.pairing is Pairing.GO
        started_ns = thread_start_ns(pid, pid if goroutine else tid)
        # A thread that started after the call entered is another one that got its number.
        return started_ns is None or started_ns > entered_ns

    return np.array(
        [
            gone(int(key["instance"]), int(value["pid"]), int(value["tid"]), int(value["boot_ns"]))
            for key, value in zip(keys, values, strict=True)
        ],
        dtype=np.bool_,
    )
