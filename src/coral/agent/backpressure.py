"""Whose calls the kernel holds back, because who reads their events is slower than they come.

A reader that is there and behind makes the kernel count calls as ``rate_limited`` instead of reporting them, before the
memory for events is full: the program pays less for what could not be kept anyway, and what was reported arrives without a
gap. While nobody reads, nothing is held back: the newest events are kept, and the next reader counts the gap as
``queue_dropped``.
"""

from __future__ import annotations

from collections.abc import Mapping


class Backpressure:
    """The decision, for all collectors of a host, which share the memory.

    Args:
        room: How many events it holds.
    """

    def __init__(self, *, room: int) -> None:
        self._full = room // 2
        self.held: frozenset[int] = frozenset()

    def look(self, waiting: Mapping[int, int]) -> tuple[frozenset[int], frozenset[int]]:
        """Decides anew.

        Args:
            waiting: Slot of each collector that is being read, to how many of its events its reader has not taken yet.

        Returns:
            The slots to hold back from now on, and those to let go again.
        """
        share = self._full // max(1, len(waiting))
        crowded = sum(waiting.values()) >= self._full
        held = frozenset(
            slot
            for slot, events in waiting.items()
            # Those that take more than their share, until little of it is left: not to and fro with every batch.
            if (crowded and events >= share) or (slot in self.held and events > share // 4)
        )
        begun, ended = held - self.held, self.held - held
        self.held = held
        return begun, ended
