"""The agent's metrics are what its ledgers say, over real probes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from support import build
from support.agent_parts import collectors_on, probe_of
from support.target import running, unique_service

from coral.agent.metrics import of_agent
from coral.agent.processes import Processes
from coral.agent.trap_cost import TrapCosts
from coral.kernel.engine import Engine
from coral.model.ledger import Ledger
from coral.model.probe import ProbeConfig
from coral.procfs.table import ProcessTable
from coral.telemetry.calls import Calls
from coral.telemetry.vitals import Vitals

pytestmark = pytest.mark.kernel


@pytest.fixture
def engine() -> Iterator[Engine]:
    """The kernel layer, small."""
    engine = Engine(ring_bytes=1 << 20, max_open_calls=4096)
    yield engine
    engine.close()


def test_metrics_equal_the_ledger(engine: Engine) -> None:
    """While a collector runs it is counted as one; what it counted is in the metrics to the call, also when it has ended."""

    async def report(_: bool) -> None:
        """Nobody asks for health here."""

    async def scenario() -> tuple[dict[tuple[str, ...], float], dict[tuple[str, ...], float], Ledger]:
        with running(build.c_program("loop"), "--calls", 600, service=unique_service("metrics")) as target:
            async with collectors_on(engine) as collectors:
                processes, costs = Processes(ProcessTable(), "test"), TrapCosts(engine)
                vitals = Vitals({"pump": lambda: collectors.pump.trouble}, report=report)

                def read() -> dict[tuple[str, ...], float]:
                    families = of_agent(
                        collectors=collectors, processes=processes, costs=costs, switch=None, calls=Calls(), vitals=vitals
                    )
                    samples = [sample for family in families for sample in family.samples]
                    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}

                spec = replace(probe_of(target.service, "work"), config=ProbeConfig(sample_rate=3))
                collector = await collectors.start(spec, session_id="", of_colony=False, actor="test")
                await asyncio.to_thread(target.run)
                during = read()
                await collectors.stop(collector.collector_id)
                return during, read(), collector.ledger

    during, after, ledger = asyncio.run(scenario())
    assert during["coral_agent_collectors", "active"] == 1
    assert during["coral_agent_instances", "attached"] == 1
    assert during["coral_agent_probe_sites", "entry"] == 1
    assert during["coral_part_works", "pump"] == 1
    assert during["coral_agent_calls_total", "entered"] == ledger.entered == 600
    assert after["coral_agent_collectors", "active"] == 0
    assert after["coral_agent_collectors_ended_total", "detached", "user"] == 1
    for name in ("entered", "returned", "no_return", "too_deep", "unseen"):
        assert after["coral_agent_calls_total", name] == getattr(ledger, name), name
    for name in ("filtered", "sampled_out", "rate_limited", "ring_lost"):
        assert after["coral_agent_calls_not_reported_total", name] == getattr(ledger, name), name
    assert after["coral_agent_events_total",] == ledger.emitted
    assert (ledger.sampled_out, ledger.emitted) == (400, 200)
    assert after["coral_agent_window_events",] == ledger.emitted
