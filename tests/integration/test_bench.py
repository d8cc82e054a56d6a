"""Seconds of what `make bench` measures, to see that it measures what it says; how fast, only an idle machine can tell."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from bench import drain, ingest
from bench.fleet.plan import Part, Plan
from coral.events.record import RECORD


def test_every_record_of_the_ring_is_sent_once_by_its_collector() -> None:
    """A full ring of twenty collectors, read twice: what was written is what the batches hold, by their sequences."""
    done = drain.drain(20, 2)
    per_ring = drain.RING_BYTES // (RECORD.itemsize + 8)
    assert (done.records, done.sent, sum(done.last)) == (2 * per_ring,) * 3
    assert np.ptp(done.last) < per_ring / 20
    assert all(spent_s > 0 for spent_s in done.stage_s.values())
    assert 60 < done.sent_bytes / done.sent < 100


def test_every_event_that_agents_send_is_stored(capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty thousand events of four collectors, from their batches to rows: none is missing, and the cost is told."""
    assert asyncio.run(ingest.once(rows=20_000, collectors=4, per_batch=500))
    assert "rows per CPU second" in capsys.readouterr().out


def test_a_fleet_is_played_by_all_simulators_together() -> None:
    """Each agent is played once, the reached ones by all simulators alike, and a part survives its way to the process."""
    plan = Plan(agents=1_003, connections=100, reached=100, instances=1_000, events_per_s=200_000, simulators=4)
    parts = list(plan.parts())
    assert sorted(agent_id for part in parts for agent_id in part.agent_ids) == [f"host-{n:05}" for n in range(1_003)]
    assert sorted(agent_id for part in parts for agent_id in part.reached) == [f"host-{n:05}" for n in range(100)]
    assert [(len(part.reached), part.connections, part.instances, part.events_per_s) for part in parts] == [
        (25, 25, 10, 2000)
    ] * 4
    assert [Part.from_json(part.to_json()).agent_ids for part in parts] == [list(part.agent_ids) for part in parts]
