"""Between messages and the model. Every value that comes in is checked here or by the model's own constructors."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import duration_pb2, timestamp_pb2

from coral.model.addresses import FileOffset
from coral.model.errors import InvalidArgument
from coral.model.ledger import COUNTERS, Ledger, UnknownInterval
from coral.model.probe import DEFAULT_DURATION_NS, Mode, ProbeConfig, ProbeFilter
from coral.model.service import Service
from coral.model.session import Instance, InstanceStatus
from coral.model.site import Site, SiteKind
from coral.wire._generated.colony.v1 import registry_pb2
from coral.wire._generated.mesh.v1 import ebpf_pb2

_BILLION = 1_000_000_000


def timestamp(value_ns: int) -> timestamp_pb2.Timestamp:
    """A Timestamp of wall-clock ns since the epoch."""
    return timestamp_pb2.Timestamp(seconds=value_ns // _BILLION, nanos=value_ns % _BILLION)


def timestamp_ns(message: timestamp_pb2.Timestamp) -> int:
    """Wall-clock ns since the epoch."""
    return message.seconds * _BILLION + message.nanos


def duration(value_ns: int) -> duration_pb2.Duration:
    """A Duration of ns."""
    return duration_pb2.Duration(seconds=value_ns // _BILLION, nanos=value_ns % _BILLION)


def duration_ns(message: duration_pb2.Duration) -> int:
    """Nanoseconds; negative when the message is."""
    return message.seconds * _BILLION + message.nanos


def requested_duration_ns(message: Any) -> int:
    """The ``duration`` of a request in ns, or the default when it is absent."""
    return duration_ns(message.duration) if message.HasField("duration") else DEFAULT_DURATION_NS


def config_from(message: ebpf_pb2.UprobeConfig) -> ProbeConfig:
    """The checked configuration.

    Raises:
        InvalidArgument: ``mode`` is not one.
    """
    try:
        mode = Mode(message.mode or Mode.EVENTS)
    except ValueError:
        raise InvalidArgument(f"mode {message.mode!r} is not known.", hint="Choose events or count.") from None
    return ProbeConfig(
        capture_args=message.capture_args,
        capture_return=message.capture_return,
        sample_rate=message.sample_rate,
        max_events=message.max_events,
        mode=mode,
    )


def config_to(config: ProbeConfig) -> ebpf_pb2.UprobeConfig:
    """The message of a configuration."""
    return ebpf_pb2.UprobeConfig(
        capture_args=config.capture_args,
        capture_return=config.capture_return,
        sample_rate=config.sample_rate,
        max_events=config.max_events,
        mode=config.mode,
    )


def filter_from(message: ebpf_pb2.UprobeFilter) -> ProbeFilter:
    """The checked filter.

    Raises:
        InvalidArgument: It has a condition, which cannot be evaluated yet.
    """
    if message.condition:
        raise InvalidArgument("filter.condition is not supported.", hint="Use min_duration and max_duration.")
    return ProbeFilter(
        min_duration_ns=duration_ns(message.min_duration),
        max_duration_ns=duration_ns(message.max_duration),
        max_events_per_second=message.max_events_per_second,
    )


def filter_to(bounds: ProbeFilter) -> ebpf_pb2.UprobeFilter:
    """The message of a filter."""
    return ebpf_pb2.UprobeFilter(
        min_duration=duration(bounds.min_duration_ns) if bounds.min_duration_ns else None,
        max_duration=duration(bounds.max_duration_ns) if bounds.max_duration_ns else None,
        max_events_per_second=bounds.max_events_per_second,
    )


def ledger_to(ledger: Ledger) -> ebpf_pb2.Ledger:
    """The message of a ledger, with the derived fields filled in."""
    return ebpf_pb2.Ledger(
        **{name: getattr(ledger, name) for name in COUNTERS},
        unreturned=ledger.unreturned,
        in_transit=ledger.in_transit,
        balanced=ledger.balanced,
        unknown_intervals=[
            ebpf_pb2.UnknownInterval(**{"from": timestamp(gap.from_ns)}, to=timestamp(gap.to_ns), cause=gap.cause)
            for gap in ledger.unknown_intervals
        ],
    )


def ledger_from(message: ebpf_pb2.Ledger, *, final: bool) -> Ledger:
    """The ledger of a message; whether it is final, only the sender's context says."""
    return Ledger(
        **{name: int(getattr(message, name)) for name in COUNTERS},
        unknown_intervals=tuple(
            UnknownInterval(from_ns=timestamp_ns(getattr(gap, "from")), to_ns=timestamp_ns(gap.to), cause=gap.cause)
            for gap in message.unknown_intervals
        ),
        final=final,
    )


def instance_to(instance: Instance) -> ebpf_pb2.Instance:
    """The message of an instance."""
    return ebpf_pb2.Instance(
        pid=instance.pid,
        start_time_ns=instance.start_time_ns,
        executable=instance.executable,
        build_id=instance.build_id,
        image_id=instance.image_id,
        function_name=instance.function_name,
        status=instance.status,
        reason=instance.reason,
        method=instance.method,
        sites=[ebpf_pb2.Site(offset=site.offset, kind=site.kind, reason=site.reason) for site in instance.sites],
        exit_status=instance.exit_status,
    )


def instance_from(message: ebpf_pb2.Instance) -> Instance:
    """The instance of a message.

    A newer agent may have words for its status and its sites that this version does not know. Such a site is left out; such
    an instance counts as failed, since nothing is known that could be relied on, and its reason has the word.
    """
    known = message.status in list(InstanceStatus)
    return Instance(
        pid=message.pid,
        start_time_ns=message.start_time_ns,
        executable=message.executable,
        build_id=message.build_id,
        image_id=message.image_id,
        function_name=message.function_name,
        status=InstanceStatus(message.status) if known else InstanceStatus.FAILED,
        reason=message.reason
        if known
        else f"{message.reason} Its agent, of another version, calls it {message.status!r}.".strip(),
        method=message.method,
        sites=tuple(
            Site(offset=FileOffset(site.offset), kind=SiteKind(site.kind), reason=site.reason)
            for site in message.sites
            if site.kind in list(SiteKind)
        ),
        exit_status=message.exit_status if message.HasField("exit_status") else None,
    )


def service_to(service: Service) -> registry_pb2.ServiceInfo:
    """The message of a service."""
    return registry_pb2.ServiceInfo(
        name=service.name,
        agent_id=service.agent_id,
        instances=service.instances,
        rule=service.rule,
        sdk_enabled=service.sdk_enabled,
        sdk_addr=service.sdk_addr,
        sdk_version=service.sdk_version,
    )


def service_from(message: registry_pb2.ServiceInfo, *, agent_id: str) -> Service:
    """The service of a message that ``agent_id`` sent; what the message itself claims to be its agent is not believed."""
    return Service(
        name=sys.intern(message.name),  # thousands of hosts run the same
        agent_id=agent_id,
        instances=message.instances,
        rule=sys.intern(message.rule),
        sdk_enabled=message.sdk_enabled,
        sdk_addr=message.sdk_addr,
        sdk_version=message.sdk_version,
    )


def uprobe_event(row: Mapping[str, Any]) -> ebpf_pb2.UprobeEvent:
    """The message of one event, given as ``events.batch.rows`` gives it."""
    returned = row["return_value"]
    return ebpf_pb2.UprobeEvent(
        timestamp=timestamp(row["timestamp_ns"]),
        collector_id=row["collector_id"],
        agent_id=row["agent_id"],
        service_name=row["service_name"],
        function_name=row["function_name"],
        event_type=row["event_type"],
        duration_ns=row["duration_ns"],
        pid=row["pid"],
        tid=row["tid"],
        args=[ebpf_pb2.FunctionArgument(**argument) for argument in row["args"]],
        return_value=ebpf_pb2.FunctionReturnValue(**returned) if returned else None,
        labels=row["labels"],
        sequence=row["sequence"],
    )


def ebpf_events(events: Iterable[Mapping[str, Any]]) -> list[ebpf_pb2.EbpfEvent]:
    """The agent's envelope around each event."""
    return [
        ebpf_pb2.EbpfEvent(
            timestamp=timestamp(row["timestamp_ns"]),
            collector_id=row["collector_id"],
            agent_id=row["agent_id"],
            service_name=row["service_name"],
            uprobe_event=uprobe_event(row),
        )
        for row in events
    ]
