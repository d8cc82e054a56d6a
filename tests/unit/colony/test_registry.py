"""Which agents are asked."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from coral.colony.registry import Registry
from coral.colony.store.database import Database
from coral.colony.store.schema import CONTROL
from coral.model.errors import NotFound, Unavailable
from coral.model.service import Agent, Service


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def agent(agent_id: str, boot_id: str = "b1") -> Agent:
    """An agent that registers now."""
    return Agent(
        agent_id=agent_id, address="127.0.0.1:1", version="1", hostname="h", boot_id=boot_id, kernel="k",
        methods=(), last_seen_at_ns=time.time_ns(), online=True,
    )  # fmt: skip


def sees(agent_id: str, *names: str) -> list[Service]:
    """What an agent sees: one instance of each."""
    return [Service(name=name, agent_id=agent_id, instances=1, rule="argv0") for name in names]


def test_registry(tmp_path: Path) -> None:
    """Agents are online while heard of; hosts are those with instances, or all when nobody knows the service."""

    async def run() -> None:
        control, clock = Database(tmp_path / "control.duckdb", CONTROL), Clock()
        await control.open()
        registry = Registry(control, offline_after_s=5, monotonic=clock)
        with pytest.raises(Unavailable):
            registry.hosts_of("shop")
        epoch_a, before = await registry.register(agent("a"), sees("a", "shop"))
        epoch_b, _ = await registry.register(agent("b"), sees("b", "other"))
        assert before == ""
        assert [one.agent_id for one in registry.hosts_of("shop")] == ["a"]
        assert [one.agent_id for one in registry.hosts_of("new")] == ["a", "b"]
        clock.now += 4
        assert registry.heartbeat("b", epoch_b, sees("b", "other", "more"))
        assert not registry.heartbeat("b", epoch_a, [])
        assert not registry.heartbeat("c", 1, [])
        clock.now += 2
        assert [(one.agent_id, one.online) for one in registry.agents()] == [("a", False), ("b", True)]
        assert [one.name for one in registry.services()] == ["more", "other"]
        assert [one.agent_id for one in registry.hosts_of("shop")] == ["b"]
        assert registry.offline_hosts_of("shop") == ["a"]
        with pytest.raises(Unavailable, match="nothing was heard of it for 6 s"):
            registry.online("a")
        with pytest.raises(NotFound):
            registry.online("nobody")
        epoch_again, before = await registry.register(agent("a", "b2"), sees("a", "shop"))
        assert (before, epoch_again > epoch_a) == ("b1", True)
        assert not registry.heartbeat("a", epoch_a, [])
        registry.flush()
        await control.close()

        control, later = Database(tmp_path / "control.duckdb", CONTROL), Clock()
        await control.open()
        revived = Registry(control, offline_after_s=5, monotonic=later)
        await revived.load()
        assert [(one.agent_id, one.boot_id, one.online) for one in revived.agents()] == [("a", "b2", True), ("b", "b1", True)]
        assert [one.name for one in revived.services()] == ["more", "other", "shop"]
        assert not revived.heartbeat("a", epoch_again, [])
        later.now += 6
        assert revived.services() == []
        await control.close()

    asyncio.run(run())
