"""What a session says about its function: statistics, the slowest calls, the histogram."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coral.events.batch import rows
from coral.events.histogram import Histogram
from coral.model.session import Session

SLOWEST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Of one session. Durations in ns, over the stored events; zero when there is none.

    Attributes:
        calls: How many calls completed or, where only entries are seen, entered.
        errors: How many of them returned an error; none is recognised yet.
        calls_per_second: Over the time since the session was accepted.
        elapsed_ns: That time.
        min_ns: The shortest.
        p50_ns: What half of the calls do not exceed, within 1 %.
        p95_ns: Likewise for 95 %.
        p99_ns: Likewise for 99 %.
        max_ns: The longest.
        mean_ns: The mean.
        sum_ns: The sum.
    """

    calls: int
    errors: int
    calls_per_second: float
    elapsed_ns: int
    min_ns: int
    p50_ns: int
    p95_ns: int
    p99_ns: int
    max_ns: int
    mean_ns: int
    sum_ns: int


def statistics(session: Session, histogram: Histogram, *, now_ns: int | None = None) -> Statistics:
    """The statistics of a session.

    Args:
        session: With its ledger, which knows the calls that no event tells of.
        histogram: Of the durations of its stored events.
        now_ns: Wall clock, for one that runs; now if None.
    """
    until_ns = session.ended_at_ns or (time.time_ns() if now_ns is None else now_ns)
    elapsed_ns = max(0, min(until_ns, session.expires_at_ns) - session.started_at_ns)
    ledger = session.ledger
    calls = ledger.returned + ledger.unseen
    return Statistics(
        calls=calls,
        errors=0,
        calls_per_second=calls / (elapsed_ns / 1e9) if elapsed_ns else 0.0,
        elapsed_ns=elapsed_ns,
        min_ns=histogram.min_ns,
        p50_ns=histogram.percentile(50),
        p95_ns=histogram.percentile(95),
        p99_ns=histogram.percentile(99),
        max_ns=histogram.max_ns,
        mean_ns=round(histogram.mean_ns),
        sum_ns=histogram.total_ns,
    )


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """One histogram of all."""
    total = Histogram()
    for histogram in histograms:
        total.merge(histogram)
    return total


def keep_slowest(kept: list[dict[str, Any]], events: pa.Table) -> list[dict[str, Any]]:
    """The slowest of ``kept`` and ``events`` together, longest first; only those that can be among them become objects.

    Args:
        kept: The slowest so far, longest first.
        events: New ones, of ``SCHEMA``.
    """
    if not events.num_rows:
        return kept
    durations = events["duration_ns"].to_numpy()
    # Most events of a long session are not even candidates: this comparison is all that they cost.
    candidates = np.flatnonzero(durations > kept[-1]["duration_ns"]) if len(kept) == SLOWEST else np.arange(len(durations))
    if not len(candidates):
        return kept
    completed = pc.not_equal(events["event_type"].take(candidates).cast(pa.string()), "entry").to_numpy()
    candidates = candidates[completed]
    if len(candidates) > SLOWEST:
        candidates = candidates[np.argpartition(durations[candidates], -SLOWEST)[-SLOWEST:]]
    both = [*kept, *rows(events.take(candidates))]
    both.sort(key=lambda event: (-event["duration_ns"], event["timestamp_ns"], event["collector_id"], event["sequence"]))
    return both[:SLOWEST]
