"""How long things took, counted in buckets: a few ns to note one, and nothing kept of it but numbers."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets, in seconds; what took longer is in one more."""


class Timings:
    """A histogram of durations. Noting one from several threads at a time may lose one; each has one writer here.

    Attributes:
        count: How many were noted.
        sum_s: What they took together, in seconds.
        most_s: The longest, in seconds.
    """

    def __init__(self, bounds_s: Sequence[float] = BOUNDS_S) -> None:
        self._bounds_s = tuple(bounds_s)
        self._counts = [0] * (len(bounds_s) + 1)
        self.count = 0
        self.sum_s = 0.0
        self.most_s = 0.0

    def note(self, seconds: float) -> None:
        """Counts one."""
        self._counts[bisect_left(self._bounds_s, seconds)] += 1
        self.count += 1
        self.sum_s += seconds
        self.most_s = max(self.most_s, seconds)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Counts what the block takes, however it ends."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.note(time.monotonic() - began)

    def cumulative(self) -> list[tuple[float, int]]:
        """By upper bound in seconds, how many took at most so long; the last bound is infinity."""
        found, total = [], 0
        for bound, count in zip((*self._bounds_s, float("inf")), self._counts, strict=True):
            total += count
            found.append((bound, total))
        return found
