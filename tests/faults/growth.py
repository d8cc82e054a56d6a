"""Whether a daemon grows: its footprints at rest over a time in which it did the same again and again."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from faults.footprint import Footprint

_WARM_UP = 1 / 3
"""Of the samples come first and are not judged: caches, pools and the database's buffers fill."""
_FEWEST = 6
_MEMORY_SHARE = 0.10
_MEMORY_KIB = 24 << 10
_COUNTED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A daemon at rest.

    Attributes:
        at_s: When, from the beginning.
        taken: What it took.
    """

    at_s: float
    taken: Footprint


def growth_faults(name: str, samples: Sequence[Sample]) -> list[str]:
    """What grew in one life of a daemon; empty as well where there are too few samples to tell.

    The slope is the median of the slopes between all pairs (Theil and Sen's): one sample that was taken while something was
    still going on does not move it. Growth is the slope times the judged time, against the middle of the samples: memory may
    grow by a tenth and 24 MiB, what is counted by 3.

    Args:
        name: Of the daemon.
        samples: In the order of time, all of one pid.
    """
    judged = samples[round(len(samples) * _WARM_UP) :]
    if len(judged) < _FEWEST:
        return []
    faults = []
    seconds = judged[-1].at_s - judged[0].at_s
    for what in ("memory_kib", "descriptors", "threads", "tasks", "processes", "links"):
        values = [(sample.at_s, float(getattr(sample.taken, what))) for sample in judged]
        grown = slope(values) * seconds
        middle = statistics.median(value for _, value in values)
        allowed = _MEMORY_KIB + _MEMORY_SHARE * middle if what == "memory_kib" else _COUNTED
        if grown > allowed:
            faults.append(f"{name}: {what} grew by {grown:.0f} in {seconds:.0f} s, from about {middle - grown / 2:.0f}")
    return faults


def slope(values: Sequence[tuple[float, float]]) -> float:
    """The median slope of all pairs of points, per second; 0 for fewer than two."""
    slopes = [(b - a) / (after - before) for (before, a), (after, b) in itertools.combinations(values, 2) if after > before]
    return statistics.median(slopes) if slopes else 0.0
