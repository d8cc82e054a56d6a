"""Many functions of a server at once, and one after the other: it stays alive, answers right, and its text is whole."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus.churn import churn, lines
from corpus.everything import attach_everything
from corpus.plans import all_plans
from support import loads

from coral.kernel.engine import Engine
from coral.model.probe import Mode

pytestmark = pytest.mark.programs


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users can reach."""
    with tempfile.TemporaryDirectory(prefix="coral-server-") as path:
        yield Path(path)


@pytest.mark.parametrize("mode", [Mode.COUNT, Mode.EVENTS])
def test_every_eighth_function_at_once(folder: Path, mode: Mode) -> None:
    """Redis works with 400 of its functions attached at once; every call is accounted for, and nothing stays behind."""
    engine = Engine(ring_bytes=1 << 20)
    try:
        with loads.redis(folder) as load:
            seen = attach_everything(engine, load, all_plans(load.image, every=8), mode, 1)
            assert load.work(0.1) > 0
            assert load.stop() == 0
    finally:
        engine.close()
    assert seen.good, seen
    assert seen.functions > 300
    assert (seen.counters["returned"] > 0) == (mode is Mode.EVENTS)


def test_random_functions_in_turn() -> None:
    """30 random functions of Redis under load, attached and detached in turn by the agent's own layers."""
    found = churn(["redis"], count=30, seed=7, every=8)
    assert found["redis"].good, "\n".join(lines(found))
    assert found["redis"].attached == 30
    assert found["redis"].drawn_reached > 0
