"""How many events this host's sessions may report: each of them, which the kernel holds, and all together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from coral.model.probe import ProbeSpec

_LOOKS = 2
"""So many measurements in a row have to be above the limit: a burst fits the ring, and is over."""


def bounded(spec: ProbeSpec, *, events_per_s: int) -> ProbeSpec:
    """A probe with at most so many events a second, whatever it asks for; what is beyond is counted as ``rate_limited``.

    Args:
        spec: As asked for.
        events_per_s: The most that is allowed; 0 for any. To count is not free: a limit that no session reaches costs each
            of its events a turn at one counter of all CPUs.
    """
    if not events_per_s:
        return spec
    asked = spec.filter.max_events_per_second or events_per_s
    return replace(spec, filter=replace(spec.filter, max_events_per_second=min(asked, events_per_s)))


class EventRate:
    """The rate of all sessions together, measured between looks.

    Args:
        events_per_s: What they may report for long.
    """

    def __init__(self, *, events_per_s: float) -> None:
        self._events_per_s = events_per_s
        self._before: Mapping[str, int] = {}
        self._looked_at = 0.0
        self._above = 0

    def too_much(self, reported: Mapping[str, int], *, now: float) -> str:
        """Which session reports the most while all together report too much; empty when they do not.

        Args:
            reported: How many events each has reported so far, by name.
            now: Of a clock that does not jump, in seconds; later than at the look before.
        """
        elapsed_s = now - self._looked_at
        rates = {name: (count - self._before.get(name, 0)) / elapsed_s for name, count in reported.items()}
        self._before, self._looked_at = dict(reported), now
        self._above = self._above + 1 if sum(rates.values()) > self._events_per_s else 0
        if self._above < _LOOKS:
            return ""
        self._above = 0  # what is left is measured anew
        return max(rates, key=lambda name: rates[name])
