"""The agent's metrics, read from what it keeps anyway. Loaded only where they are served.

No label has a value that a user or a program chooses: their number is bounded by what is written here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import Metric

from coral.agent.collectors import Collectors
from coral.agent.lockdown import Switch
from coral.agent.processes import Processes
from coral.agent.trap_cost import TrapCosts
from coral.events.record import EVENT
from coral.telemetry.calls import Calls
from coral.telemetry.metrics import counter, gauge, of_every_daemon
from coral.telemetry.vitals import Vitals

CALLS = ("entered", "returned", "no_return", "too_deep", "unseen", "orphan_returns")
"""The counters of the ledger that say what became of calls."""
NOT_REPORTED = ("filtered", "sampled_out", "rate_limited", "ring_lost")
"""Those that say why a call that was seen is no event."""


def of_agent(
    *,
    collectors: Collectors,
    processes: Processes,
    costs: TrapCosts,
    switch: Switch | None,
    calls: Calls,
    vitals: Vitals,
) -> Iterable[Metric]:
    """Everything that an agent tells of itself. Reads the kernel's counters of each collector that runs."""
    running, tally = collectors.running, collectors.tally()
    ledger = tally.ledger
    by_status = Counter(collector.status.value for collector in running)
    yield gauge(
        "coral_agent_collectors", "Collectors that run, by status.",
        *(((status,), by_status[status]) for status in ("pending", "active")), labels=("status",),
    )  # fmt: skip
    yield counter(
        "coral_agent_collectors_ended", "Collectors that have ended, by status and reason.",
        *tally.ended.items(), labels=("status", "reason"),
    )  # fmt: skip
    instances = Counter(tracked.instance.status.value for collector in running for tracked in collector.tracked.values())
    yield gauge(
        "coral_agent_instances", "Processes in collectors that run, by status.",
        *(((status,), count) for status, count in sorted(instances.items())), labels=("status",),
    )  # fmt: skip
    sites = Counter(site.kind.value for collector in running for site in collector.sites)
    yield gauge(
        "coral_agent_probe_sites", "Places in programs that are probed, by kind.",
        *(((kind,), count) for kind, count in sorted(sites.items())), labels=("kind",),
    )  # fmt: skip
    yield counter(
        "coral_agent_calls", "Calls of probed functions, by what became of them; entered is all of them.",
        *(((name,), getattr(ledger, name)) for name in CALLS), labels=("what",),
    )  # fmt: skip
    yield gauge("coral_agent_calls_open", "Calls that have not returned yet.", ((), ledger.open))
    yield counter("coral_agent_events", "Events put into the ring.", ((), ledger.emitted))
    yield counter(
        "coral_agent_calls_not_reported", "Calls that were seen and are no event, by reason.",
        *(((name,), getattr(ledger, name)) for name in NOT_REPORTED), labels=("reason",),
    )  # fmt: skip
    kept, most = collectors.windows
    yield gauge("coral_agent_window_events", "Events kept for readers.", ((), kept))
    yield gauge("coral_agent_window_bytes", "Memory of the events kept for readers.", ((), kept * EVENT.itemsize))
    yield gauge("coral_agent_window_limit_bytes", "What those may take.", ((), most * EVENT.itemsize))
    if (cost := costs.known) is not None:
        yield gauge(
            "coral_agent_trap_seconds", "What a hit costs the program, by what the kernel does with its instruction.",
            (("emulated",), cost.emulated_ns / 1e9), (("stepped",), cost.stepped_ns / 1e9), labels=("instruction",),
        )  # fmt: skip
    services = processes.services
    yield gauge("coral_agent_services", "Services seen on this host.", ((), len(services)))
    yield gauge("coral_agent_service_instances", "Their processes.", ((), sum(each.instances for each in services)))
    locked = switch is not None and switch.lockdown is not None
    yield gauge("coral_agent_locked_down", "Whether the host is locked down: 1, or 0.", ((), float(locked)))
    yield from of_every_daemon(calls, vitals)
