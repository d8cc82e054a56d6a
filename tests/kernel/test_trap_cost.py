"""What a probe costs is measured, and the measurement leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from coral.agent import trap_cost
from coral.agent.trap_cost import TrapCosts
from coral.kernel.engine import Engine
from coral.kernel.layout import MAX_SLOTS
from coral.model.errors import ResourceExhausted
from coral.model.inspection import TrapCost
from coral.model.probe import ProbeConfig, ProbeFilter

pytestmark = pytest.mark.kernel


@pytest.fixture
def engine() -> Engine:
    """A kernel layer of the test's own."""
    return Engine(ring_bytes=1 << 16)


def measured(costs: TrapCosts) -> TrapCost:
    """What a hit costs."""
    return asyncio.run(costs.cost())


def test_it_is_measured_once_and_leaves_nothing(engine: Engine) -> None:
    """The figures are those of traps, a second question has the same answer, and no process, file or slot is kept."""
    before = set(Path("/proc/self/fd").iterdir()), children()
    costs = TrapCosts(engine)
    first = measured(costs)
    assert 100 < first.emulated_ns < 1_000_000
    assert 100 < first.stepped_ns < 1_000_000
    assert first.pairing_ns < first.emulated_ns + first.stepped_ns
    assert measured(costs) is first
    assert (set(Path("/proc/self/fd").iterdir()), children()) == before
    for _ in range(MAX_SLOTS):
        engine.acquire_slot(ProbeConfig(), ProbeFilter())
    drained = engine.drain()
    assert len(drained.events) == 0
    engine.close()


def test_figures_hold_for_another_run(engine: Engine) -> None:
    """Two measurements agree within a factor of three, however busy the machine is: it is CPU time that they measure."""
    first, second = measured(TrapCosts(engine)), measured(TrapCosts(engine))
    for name in ("emulated_ns", "stepped_ns"):
        assert 1 / 3 < getattr(first, name) / getattr(second, name) < 3
    engine.close()


def test_a_failure_says_why_and_is_tried_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """While all slots are taken there is no figure but a reason; once some are free there is, after a while."""
    costs = TrapCosts(engine)
    slots = [engine.acquire_slot(ProbeConfig(), ProbeFilter()) for _ in range(MAX_SLOTS)]
    with pytest.raises(ResourceExhausted, match="in use"):
        measured(costs)
    engine.release_slot(slots[0])
    with pytest.raises(ResourceExhausted, match="in use"):
        measured(costs)
    monkeypatch.setattr(trap_cost, "_AGAIN_AFTER_S", 0.0)
    assert measured(costs).emulated_ns > 0
    engine.close()


def children() -> list[str]:
    """The processes that this one started and that still are."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
