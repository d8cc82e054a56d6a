"""The JSON documents of the command line, from messages. Pure: what they hold is pinned, see docs/protocol.md.

Counters, sequences and durations are numbers, times RFC 3339 in UTC, with nine decimals where they belong to an event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from coral.cli.times import rfc3339
from coral.wire._generated.colony.v1 import debug_pb2, registry_pb2
from coral.wire._generated.mesh.v1 import ebpf_pb2
from coral.wire.convert import duration_ns, timestamp_ns

Document = dict[str, Any]

_EVENT_DECIMALS = 9
_COUNTERS = ("entered", "returned", "unreturned")
_OPTIONAL: tuple[Literal["open"], Literal["no_return"], Literal["too_deep"]] = ("open", "no_return", "too_deep")
_MORE_COUNTERS = (
    "emitted", "filtered", "sampled_out", "rate_limited", "ring_lost", "stored", "queue_dropped", "in_transit",
    "orphan_returns",
)  # fmt: skip


def session_document(session: debug_pb2.DebugSession, results: debug_pb2.GetDebugResultsResponse) -> Document:
    """The session document: what ``get``, ``attach`` and ``stop`` print, and an item of ``list``."""
    return {
        "session_id": session.session_id,
        "service_name": session.service_name,
        "function_name": session.function_name,
        "status": session.status,
        "reason_code": session.reason_code,
        "reason": session.reason,
        "requested_by": session.requested_by,
        "started_at": _time(session, "started_at"),
        "expires_at": _time(session, "expires_at"),
        "ended_at": _time(session, "ended_at"),
        "events_removed_at": _time(session, "events_removed_at"),
        "statistics": _statistics(results.statistics, session.ledger),
        "ledger": ledger_document(session.ledger),
        "slowest": [event_document(outlier.event, session.session_id) for outlier in results.slow_outliers],
        "collectors": [_collector(collector) for collector in session.collectors],
    }


def ledger_document(ledger: ebpf_pb2.Ledger) -> Document:
    """The counters; what is not known is null."""
    return {
        **{name: getattr(ledger, name) for name in _COUNTERS},
        **{name: getattr(ledger, name) if ledger.HasField(name) else None for name in _OPTIONAL},
        **{name: getattr(ledger, name) for name in _MORE_COUNTERS},
        "unknown_intervals": [
            {"from": _time(gap, "from"), "to": _time(gap, "to"), "cause": gap.cause} for gap in ledger.unknown_intervals
        ],
        "balanced": ledger.balanced if ledger.HasField("balanced") else None,
        "unseen": ledger.unseen,
    }


def event_document(event: ebpf_pb2.UprobeEvent, session_id: str) -> Document:
    """One event, from its message."""
    returned = event.return_value
    return {
        "collector_id": event.collector_id,
        "sequence": event.sequence,
        "timestamp": rfc3339(timestamp_ns(event.timestamp), decimals=_EVENT_DECIMALS),
        "session_id": session_id,
        "agent_id": event.agent_id,
        "service_name": event.service_name,
        "function_name": event.function_name,
        "event_type": event.event_type,
        "duration_ns": event.duration_ns,
        "pid": event.pid,
        "tid": event.tid,
        "args": [{"name": one.name, "type": one.type, "value": one.value} for one in event.args],
        "return_value": {
            "type": returned.type,
            "value": returned.value,
            "is_error": returned.is_error,
            "error_message": returned.error_message,
        }
        if event.HasField("return_value")
        else None,
        "labels": dict(sorted(event.labels.items())),
    }


def row_document(row: Mapping[str, Any], session_id: str) -> Document:
    """One event, from a row as ``events.batch.rows`` gives it; equal to that of its message."""
    return {
        "collector_id": row["collector_id"],
        "sequence": row["sequence"],
        "timestamp": rfc3339(row["timestamp_ns"], decimals=_EVENT_DECIMALS),
        "session_id": session_id,
        "agent_id": row["agent_id"],
        "service_name": row["service_name"],
        "function_name": row["function_name"],
        "event_type": row["event_type"],
        "duration_ns": row["duration_ns"],
        "pid": row["pid"],
        "tid": row["tid"],
        "args": row["args"],
        "return_value": row["return_value"],
        "labels": dict(sorted(row["labels"].items())),
    }


def service_documents(services: Iterable[registry_pb2.ServiceInfo]) -> list[Document]:
    """Services by name, each merged from the entries of the agents that see it."""
    by_name: dict[str, list[registry_pb2.ServiceInfo]] = {}
    for service in services:
        by_name.setdefault(service.name, []).append(service)
    return [_service(name, entries) for name, entries in sorted(by_name.items())]


def agent_document(agent: registry_pb2.Agent) -> Document:
    """One agent."""
    return {
        "agent_id": agent.agent_id,
        "address": agent.address,
        "status": agent.status,
        "version": agent.version,
        "last_seen_at": _time(agent, "last_seen_at"),
        "kernel": agent.kernel,
        "methods": list(agent.methods),
        "lockdown": agent.lockdown or None,
    }


def list_document(items: Sequence[Mapping[str, Any]], next_page_token: str | None = None) -> Document:
    """What a list prints with ``-o json``."""
    return {"items": list(items), "next_page_token": next_page_token or None}


def _service(name: str, entries: Sequence[registry_pb2.ServiceInfo]) -> Document:
    rules = dict.fromkeys(entry.rule for entry in entries)
    sdk = next((entry for entry in entries if entry.sdk_enabled), None)
    return {
        "name": name,
        "rule": ", ".join(rules),
        "instances": sum(entry.instances for entry in entries),
        "agents": sorted({entry.agent_id for entry in entries}),
        "sdk": {
            "enabled": sdk is not None,
            "addr": sdk.sdk_addr if sdk else "",
            "version": sdk.sdk_version if sdk else "",
        },
    }


def completed_calls(ledger: ebpf_pb2.Ledger) -> int:
    """How many calls completed: what the colony counts too, but as of this ledger, which may be a moment older."""
    return ledger.returned + ledger.unseen


def _statistics(statistics: debug_pb2.DebugStatistics, ledger: ebpf_pb2.Ledger) -> Document:
    return {
        "calls": completed_calls(ledger),
        "errors": statistics.errors,
        "calls_per_second": statistics.calls_per_second,
        "duration_ns": {
            name: duration_ns(getattr(statistics, f"duration_{name}"))
            for name in ("min", "p50", "p95", "p99", "max", "mean", "sum")
        },
    }


def _collector(collector: debug_pb2.Collector) -> Document:
    return {
        "collector_id": collector.collector_id,
        "agent_id": collector.agent_id,
        "status": collector.status,
        "reason": collector.reason,
        "ledger": ledger_document(collector.ledger),
        "instances": [_instance(instance) for instance in collector.instances],
    }


def _instance(instance: ebpf_pb2.Instance) -> Document:
    return {
        "pid": instance.pid,
        "start_time_ns": instance.start_time_ns,
        "executable": instance.executable,
        "build_id": instance.build_id,
        "image_id": instance.image_id,
        "function_name": instance.function_name,
        "status": instance.status,
        "reason": instance.reason,
        "method": instance.method,
        "sites": [{"offset": site.offset, "kind": site.kind, "reason": site.reason} for site in instance.sites],
        "exit_status": instance.exit_status if instance.HasField("exit_status") else None,
    }


def _time(message: Any, field: str) -> str | None:
    return rfc3339(timestamp_ns(getattr(message, field))) if message.HasField(field) else None
