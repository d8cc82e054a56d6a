"""The bounded memory of a collector: its newest events, by sequence, until a reader has had time to take them."""

from __future__ import annotations

from collections import deque

import numpy as np

from coral.events.record import EVENT, Array, joined

_SMALL = 1024
"""Parts are put together up to this many events: a slow stream would else make one of every few events, and thousands."""


class Window:
    """Events of one collector, oldest dropped first.

    What is dropped is not counted here: a reader sees the gap in the sequences, and counts it as ``queue_dropped``.

    """

    def __init__(self) -> None:
        self._parts: deque[Array] = deque()
        self._kept = 0
        self.last_sequence = 0

    @property
    def kept(self) -> int:
        """How many events are kept."""
        return self._kept

    def append(self, events: Array) -> None:
        """Adds events whose sequences go on from ``last_sequence``."""
        if not (added := len(events)):
            return
        if self._parts and len(self._parts[-1]) + len(events) <= _SMALL:
            events = joined([self._parts.pop(), events])
        self._parts.append(events)
        self._kept += added
        self.last_sequence = int(events["sequence"][-1])

    def shrink(self, events: int) -> None:
        """Drops the oldest events until at most ``events`` are kept."""
        while self._kept > events:
            excess = self._kept - events
            oldest = self._parts.popleft()
            if len(oldest) > excess:
                self._parts.appendleft(oldest[excess:].copy())
                self._kept -= excess
            else:
                self._kept -= len(oldest)

    def after(self, sequence: int, limit: int) -> Array:
        """Up to ``limit`` kept events whose sequences are greater than ``sequence``, in order."""
        chosen: list[Array] = []
        count = 0
        for part in self._parts:
            if int(part["sequence"][-1]) <= sequence:
                continue
            skipped = max(0, sequence + 1 - int(part["sequence"][0]))
            piece = part[skipped : skipped + limit - count]
            chosen.append(piece)
            count += len(piece)
            if count >= limit:
                break
        return joined(chosen) if chosen else np.zeros(0, EVENT)

    def between(self, start_ns: int, end_ns: int, last_sequence: int) -> Array:
        """Kept events with ``start_ns <= timestamp_ns < end_ns`` up to a sequence, ordered by (timestamp, sequence)."""
        chosen = [
            part[(part["timestamp_ns"] >= start_ns) & (part["timestamp_ns"] < end_ns) & (part["sequence"] <= last_sequence)]
            for part in self._parts
        ]
        events = joined(chosen) if chosen else np.zeros(0, EVENT)
        ordered: Array = events[np.lexsort((events["sequence"], events["timestamp_ns"]))]
        return ordered
