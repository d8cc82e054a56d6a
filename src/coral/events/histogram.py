"""Log-linear histograms of durations, as HdrHistogram and DDSketch keep them.

Values below 64 have a bucket each; above, every power of two is cut into 64 equal buckets. A value reported as the middle
of its bucket is off by at most half a bucket: 1/128, under 1 %.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_SUB_BITS = 6
_SUB = 1 << _SUB_BITS
BUCKETS = _SUB * (64 - _SUB_BITS + 1)
_EXACT = 1 << 53


def bucket_of(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The bucket index of each duration in ns."""
    values = np.asarray(values, dtype="u8")
    if not len(values) or values.max() < _EXACT:
        # An IEEE 754 double below 2**53 holds the value exactly: its exponent and the next six bits are the bucket, as one
        # number, which begins at 1023 (the bias) plus six for the buckets of single values, less one octave of them.
        bits = values.astype("f8").view("i8") >> (52 - _SUB_BITS)
        return np.where(values < _SUB, values.astype("i8"), bits - ((1023 + _SUB_BITS - 1) << _SUB_BITS))
    # frexp is exact on integers below 2**53; shifting first keeps larger ones exact too.
    high = values >> np.uint64(32)
    exponent = np.where(
        high > 0, np.frexp(high.astype("f8"))[1] + 32, np.frexp((values & np.uint64(0xFFFFFFFF)).astype("f8"))[1]
    )
    shift = np.maximum(exponent - 1 - _SUB_BITS, 0)
    sub = (values >> shift.astype("u8")).astype("i8")
    return np.where(exponent - 1 < _SUB_BITS, values.astype("i8"), shift * _SUB + sub)


def bounds(bucket: int) -> tuple[int, int]:
    """The durations in ns that a bucket counts: from the first, up to but not including the second."""
    if bucket < 2 * _SUB:
        return bucket, bucket + 1
    shift, sub = bucket // _SUB - 1, bucket % _SUB + _SUB
    return sub << shift, (sub + 1) << shift


class Histogram:
    """Counts of durations, with the exact minimum, maximum and sum beside them.

    Attributes:
        counts: One number per bucket.
        count: How many durations.
        total_ns: Their sum.
        min_ns: The shortest; 0 when there is none.
        max_ns: The longest; 0 when there is none.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BUCKETS, "i8")
        self.count = 0
        self.total_ns = 0
        self.min_ns = 0
        self.max_ns = 0

    def add(self, durations_ns: npt.NDArray[np.uint64]) -> None:
        """Counts each of ``durations_ns``."""
        if not len(durations_ns):
            return
        self.counts += np.bincount(bucket_of(durations_ns), minlength=BUCKETS)
        self._widen(int(durations_ns.min()), int(durations_ns.max()))
        self.count += len(durations_ns)
        self.total_ns += int(durations_ns.sum(dtype="u8"))

    def merge(self, other: Histogram) -> None:
        """Adds the counts of ``other`` to this one."""
        if not other.count:
            return
        self.counts += other.counts
        self._widen(other.min_ns, other.max_ns)
        self.count += other.count
        self.total_ns += other.total_ns

    def percentile(self, percent: float) -> int:
        """The duration in ns that ``percent`` of the calls do not exceed; 0 when there is none."""
        if not self.count:
            return 0
        rank = max(1, int(np.ceil(self.count * percent / 100)))
        if rank >= self.count:
            return self.max_ns
        bucket = int(np.searchsorted(np.cumsum(self.counts), rank))
        lower, upper = bounds(bucket)
        return min(max((lower + upper - 1) // 2, self.min_ns), self.max_ns)

    @property
    def mean_ns(self) -> float:
        """The mean; 0 when there is none."""
        return self.total_ns / self.count if self.count else 0.0

    def filled(self) -> list[tuple[int, int, int]]:
        """The buckets that count something: lower bound, upper bound (exclusive), count; by duration."""
        return [(*bounds(int(bucket)), int(self.counts[bucket])) for bucket in np.flatnonzero(self.counts)]

    def to_bytes(self) -> bytes:
        """A compact form for ``from_bytes``: header, then (bucket, count) pairs, little-endian int64."""
        filled = np.flatnonzero(self.counts)
        header: Sequence[int] = (self.count, self.total_ns, self.min_ns, self.max_ns)
        return np.concatenate([np.array(header, "<i8"), filled.astype("<i8"), self.counts[filled].astype("<i8")]).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Histogram:
        """The histogram that ``to_bytes`` wrote.

        Raises:
            ValueError: ``data`` is not one.
        """
        values = np.frombuffer(data, "<i8")
        if len(values) < 4 or len(values) % 2:
            raise ValueError("not a histogram")
        made = cls()
        made.count, made.total_ns, made.min_ns, made.max_ns = (int(value) for value in values[:4])
        filled, counts = np.split(values[4:], 2)
        made.counts[filled] = counts
        return made

    def _widen(self, lowest: int, highest: int) -> None:
        self.min_ns = lowest if not self.count else min(self.min_ns, lowest)
        self.max_ns = max(self.max_ns, highest)
