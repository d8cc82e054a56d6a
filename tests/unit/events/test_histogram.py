"""Histograms of durations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coral.events.histogram import BUCKETS, Histogram, bounds, bucket_of

durations = st.integers(min_value=0, max_value=2**64 - 1)


@given(durations)
def test_a_duration_lies_in_its_bucket(value: int) -> None:
    """Every 64-bit duration falls between the bounds of its bucket, and the bucket is narrow enough for 1 %."""
    bucket = int(bucket_of(np.array([value], "u8"))[0])
    lower, upper = bounds(bucket)
    assert 0 <= bucket < BUCKETS
    assert lower <= value < upper
    assert (upper - 1 - lower) / 2 <= 0.01 * max(lower, 1)


@given(st.lists(st.integers(min_value=1, max_value=10**12), min_size=1, max_size=300), st.sampled_from([50, 95, 99]))
def test_percentiles_are_within_one_percent(values: list[int], percent: int) -> None:
    """A percentile is within 1 % of the value at its rank; minimum, maximum, sum and mean are exact."""
    histogram = Histogram()
    histogram.add(np.array(values, "u8"))
    ranked = sorted(values)
    exact = ranked[max(1, -(-len(values) * percent // 100)) - 1]
    assert histogram.percentile(percent) == pytest.approx(exact, rel=0.01)
    assert (histogram.min_ns, histogram.max_ns, histogram.total_ns) == (ranked[0], ranked[-1], sum(values))
    assert histogram.mean_ns == pytest.approx(sum(values) / len(values))


@given(st.lists(st.integers(min_value=1, max_value=10**12)), st.lists(st.integers(min_value=1, max_value=10**12)))
def test_merging_and_storing_lose_nothing(first: list[int], second: list[int]) -> None:
    """The merge of two histograms, stored and read again, is the histogram of both lists."""
    one, other, both = Histogram(), Histogram(), Histogram()
    one.add(np.array(first, "u8"))
    other.add(np.array(second, "u8"))
    both.add(np.array(first + second, "u8"))
    one.merge(other)
    read = Histogram.from_bytes(one.to_bytes())
    assert read.to_bytes() == both.to_bytes()
    assert read.filled() == both.filled()


def test_bytes_that_are_no_histogram_are_refused() -> None:
    """Damaged bytes raise ValueError."""
    with pytest.raises(ValueError, match="not a histogram"):
        Histogram.from_bytes(b"\0" * 24)
