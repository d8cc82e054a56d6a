"""The collectors that an agent knows: those that run, and those that ended a while ago, for late readers."""

from __future__ import annotations

from collections.abc import Iterator

from coral.agent.clock import boot_ns
from coral.agent.collector import Collector
from coral.agent.tally import Tally

_KEEP_ENDED_NS = 600_000_000_000
_MAX_ENDED = 256


class Kept:
    """By id. Belongs to the event loop's thread.

    Args:
        events: How many events the windows of all may keep together.

    Attributes:
        most_events: Likewise.
    """

    def __init__(self, *, events: int) -> None:
        self.most_events = events
        self._by_id: dict[str, Collector] = {}
        self._forgotten = Tally()

    def __iter__(self) -> Iterator[Collector]:
        return iter(list(self._by_id.values()))

    def add(self, collector: Collector) -> None:
        """Takes one in."""
        self._by_id[collector.collector_id] = collector

    def get(self, collector_id: str) -> Collector | None:
        """The one of that id; None when there is none, or it has been forgotten."""
        return self._by_id.get(collector_id)

    @property
    def running(self) -> list[Collector]:
        """Those that have not ended."""
        return [collector for collector in self._by_id.values() if not collector.ended.is_set()]

    @property
    def events(self) -> int:
        """How many events their windows keep."""
        return sum(collector.window.kept for collector in self._by_id.values())

    def tally(self) -> Tally:
        """What all of this life of the agent counted, the forgotten ones included; reads the kernel's counters."""
        tally = self._forgotten.copy()
        for collector in self._by_id.values():
            tally.add(collector)
        return tally

    def forget_old(self) -> None:
        """Forgets what ended long ago, and the oldest of too many."""
        ended = [collector for collector in self._by_id.values() if collector.ended.is_set()]
        for position, collector in enumerate(reversed(ended)):
            if position >= _MAX_ENDED or boot_ns() - collector.ended_boot_ns > _KEEP_ENDED_NS:
                del self._by_id[collector.collector_id]
                self._forgotten.add(collector)

    def bound_windows(self) -> None:
        """Keeps all windows together within their limit, at the cost of the fullest."""
        excess = self.events - self.most_events
        if excess <= 0:
            return
        # First what a reader has already: it would be read again only if its link broke.
        for collector in self._by_id.values():
            waiting = collector.waiting
            if waiting is not None and excess > 0:
                spare = min(excess, max(0, collector.window.kept - waiting))
                collector.window.shrink(collector.window.kept - spare)
                excess -= spare
        if excess > 0:
            fullest = max((collector.window for collector in self._by_id.values()), key=lambda window: window.kept)
            fullest.shrink(max(0, fullest.kept - excess))
