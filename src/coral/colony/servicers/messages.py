"""Sessions, results and steps of a follower as messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from coral.colony.followers import Step
from coral.colony.results import Statistics
from coral.events.batch import encode
from coral.events.histogram import Histogram
from coral.model.session import Session
from coral.wire._generated.colony.v1 import debug_pb2
from coral.wire._generated.mesh.v1 import ebpf_pb2
from coral.wire.convert import duration, instance_to, ledger_to, timestamp, uprobe_event

_INT32_MAX = (1 << 31) - 1
_INT64_MAX = (1 << 63) - 1


def session_message(session: Session) -> debug_pb2.DebugSession:
    """A session with all that belongs to it."""
    ledger = session.ledger
    return debug_pb2.DebugSession(
        session_id=session.session_id,
        service_name=session.service_name,
        function_name=session.function_name,
        agent_id=session.agent_id,
        started_at=timestamp(session.started_at_ns),
        expires_at=timestamp(session.expires_at_ns),
        status=session.status,
        requested_by=session.requested_by,
        event_count=min(ledger.stored, _INT32_MAX),
        ledger=ledger_to(ledger),
        collectors=[
            debug_pb2.Collector(
                collector_id=collector.collector_id,
                agent_id=collector.agent_id,
                status=collector.status,
                reason=collector.reason,
                ledger=ledger_to(collector.ledger),
                instances=[instance_to(instance) for instance in collector.instances],
            )
            for collector in session.collectors
        ],
        reason=session.reason,
        ended_at=timestamp(session.ended_at_ns) if session.ended_at_ns else None,
        reason_code=session.reason_code,
        events_removed_at=timestamp(session.events_removed_at_ns) if session.events_removed_at_ns else None,
        events_removed_why=session.events_removed_why,
    )


def statistics_message(statistics: Statistics) -> debug_pb2.DebugStatistics:
    """The statistics of a session."""
    return debug_pb2.DebugStatistics(
        total_calls=min(statistics.calls, _INT64_MAX),
        duration_p50=duration(statistics.p50_ns),
        duration_p95=duration(statistics.p95_ns),
        duration_p99=duration(statistics.p99_ns),
        duration_max=duration(statistics.max_ns),
        errors=statistics.errors,
        calls_per_second=statistics.calls_per_second,
        duration_min=duration(statistics.min_ns),
        duration_mean=duration(statistics.mean_ns),
        duration_sum=duration(statistics.sum_ns),
    )


def outlier_messages(events: Iterable[Mapping[str, Any]]) -> list[debug_pb2.SlowOutlier]:
    """The slowest events, given as ``events.batch.rows`` gives them."""
    return [
        debug_pb2.SlowOutlier(
            duration=duration(event["duration_ns"]),
            timestamp=timestamp(event["timestamp_ns"]),
            labels=event["labels"],
            event=uprobe_event(event),
        )
        for event in events
    ]


def histogram_message(histogram: Histogram) -> debug_pb2.Histogram:
    """The buckets that count something."""
    filled = histogram.filled()
    return debug_pb2.Histogram(
        lower_ns=[lower for lower, _, _ in filled],
        upper_ns=[upper for _, upper, _ in filled],
        count=[count for _, _, count in filled],
    )


def step_message(step: Step) -> ebpf_pb2.UprobeEventBatch:
    """A step of a follower; the last one carries the session's ledger, status and reason code."""
    if step.collector is None:
        return ebpf_pb2.UprobeEventBatch(
            ledger=ledger_to(step.session.ledger),
            final=True,
            status=step.session.status,
            reason_code=step.session.reason_code,
        )
    collector = step.collector
    return ebpf_pb2.UprobeEventBatch(
        arrow_ipc=encode(step.events) if step.events.num_rows else b"",
        first_sequence=step.events["sequence"][0].as_py() if step.events.num_rows else 0,
        last_sequence=step.upto,
        ledger=ledger_to(collector.ledger),
        instances=[instance_to(instance) for instance in collector.instances],
        collector_id=collector.collector_id,
        status=collector.status,
        reason_code=collector.reason_code,
    )
