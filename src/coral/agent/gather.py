"""When a stream of events sends: at once after a quiet time, in large batches while events keep coming.

A batch costs agent and colony some milliseconds of CPU however few events it holds. So what comes soon after a batch waits
for the next; what comes after a quiet time waits for nothing.
"""

from __future__ import annotations

BATCH_EVENTS = 65_536
"""The most that a batch holds."""
FULL_EVENTS = 16_384
"""So many are sent without waiting for more."""
GATHER_S = 0.1
"""From a batch to the next that is not full, at least: what events of a steady stream wait for, at most."""


class Gather:
    """The waiting of one stream of batches."""

    def __init__(self) -> None:
        self._due_s = 0.0

    def sent(self, *, now_s: float, events: int) -> None:
        """Says that a batch is sent.

        Args:
            now_s: Of a clock that does not jump.
            events: How many it holds; one without any, a mere snapshot of counters, delays nothing.
        """
        if events:
            self._due_s = now_s + GATHER_S

    def wait_s(self, *, now_s: float, waiting: int) -> float:
        """How long to wait before the next batch, with so many events for it already; 0 for not at all."""
        if waiting >= FULL_EVENTS:
            return 0.0
        return max(0.0, self._due_s - now_s)
