"""When a stream of events sends: at once after a quiet time, in large batches while events keep coming.

A batch costs agent and colony some milliseconds of CPU however few events it holds. So what comes soon after a batch waits
for the next; what comes after a quiet time waits for nothing.

How much a batch may hold depends on the link: a reader hears nothing while one is on its way, and gives up on an agent that
is silent for seconds. So each stream begins with small ones, and sends larger ones as long as they are taken quickly. A
reader that gave up gets some events each time all the same, however narrow the link.
"""

from __future__ import annotations

BATCH_EVENTS = 65_536
"""The most that a batch holds."""
FIRST_EVENTS = 1024
"""The most that the first one of a stream holds, some 40 KB, and the least that a slow link makes of it."""
SLOW_S = 0.5
"""A batch that took so long to be taken was too large for the link."""
FULL_EVENTS = 16_384
"""So many are sent without waiting for more."""
GATHER_S = 0.1
"""From a batch to the next that is not full, at least: what events of a steady stream wait for, at most."""
MOST_GATHER_S = 2.0
"""The same where the reader asks for fewer: it reads from many agents."""


class Gather:
    """The waiting of one stream of batches."""

    def __init__(self, *, gather_s: float = GATHER_S) -> None:
        """Args: ``gather_s`` is what the reader asks for, from a batch to the next that is not full; within bounds."""
        self._gather_s = min(MOST_GATHER_S, max(GATHER_S, gather_s))
        self._due_s = 0.0
        self._sent_s = 0.0
        self.most = FIRST_EVENTS
        """What the next batch may hold."""

    def sent(self, *, now_s: float, events: int) -> None:
        """Says that a batch is sent.

        Args:
            now_s: Of a clock that does not jump.
            events: How many it holds; one without any, a mere snapshot of counters, delays nothing.
        """
        self._sent_s = now_s
        if events:
            self._due_s = now_s + self._gather_s

    def taken(self, *, now_s: float) -> None:
        """Says that what carries the batch has taken it: at once while there is room, else as fast as the link is."""
        slow = now_s - self._sent_s > SLOW_S
        self.most = max(FIRST_EVENTS, self.most // 2) if slow else min(BATCH_EVENTS, 2 * self.most)

    def wait_s(self, *, now_s: float, waiting: int) -> float:
        """How long to wait before the next batch, with so many events for it already; 0 for not at all."""
        if waiting >= FULL_EVENTS:
            return 0.0
        return max(0.0, self._due_s - now_s)
