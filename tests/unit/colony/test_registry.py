"""Which agents are asked."""

from __future__ import annotations

import asyncio
import time
from itertools import islice
from pathlib import Path

import pytest

from coral.colony.registry import ASKED_AT_RANDOM, SEEN_FLUSH_S, Registry
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


def test_a_large_fleet_reports_less_often(tmp_path: Path) -> None:
    """Agents are asked as often as is set while they are few, else as often as the colony takes; who obeys is online."""

    async def run() -> None:
        control, clock = Database(tmp_path / "control.duckdb", CONTROL), Clock()
        await control.open()
        registry = Registry(control, offline_after_s=5, heartbeat_ms=1000, heartbeats_per_s=4, monotonic=clock)
        names = [f"host-{number:03}" for number in range(40)]
        epochs = {}
        for name in names[:4]:
            epochs[name], _ = await registry.register(agent(name), sees(name, "shop"))
        assert registry.heartbeat_ms() == 1000
        for name in names[4:]:
            epochs[name], _ = await registry.register(agent(name), sees(name, "shop"))
        assert registry.heartbeat_ms() == 10_000
        for name in names[:20]:
            assert registry.heartbeat(name, epochs[name], None)
        clock.now += 24
        assert sum(one.online for one in registry.agents()) == 20 + 2  # and two that were asked for 10 s at once
        clock.now += 2
        registry.flush()
        assert (sum(one.online for one in registry.agents()), registry.heartbeat_ms()) == (0, 1000)
        asked = []
        for late_s in (0, 1, 1, 0, 0, 0, 0):  # a colony that does not keep up asks for less, for a while
            clock.now += SEEN_FLUSH_S + late_s
            registry.flush()
            asked.append(registry.heartbeat_ms())
        assert asked == [1000, 2000, 4000, 2667, 1778, 1185, 1000]
        await control.close()

        control = Database(tmp_path / "control.duckdb", CONTROL)
        await control.open()
        revived = Registry(control, offline_after_s=5, heartbeat_ms=1000, heartbeats_per_s=4, monotonic=clock)
        await revived.load()
        assert revived.heartbeat_ms() == 10_000  # from the start, lest all come back at once
        await control.close()

    asyncio.run(run())


def test_who_comes_back_unchanged_is_not_written(tmp_path: Path) -> None:
    """After a restart of the colony only what differs goes to the disk: an address, a new life, other services."""

    async def run() -> None:
        control = Database(tmp_path / "control.duckdb", CONTROL)
        await control.open()
        registry = Registry(control, offline_after_s=5)
        for name in ("a", "b", "c"):
            await registry.register(agent(name), sees(name, "shop"))
        revived = Registry(control, offline_after_s=5)
        await revived.load()
        rows = await control.read(lambda cursor: cursor.execute("SELECT rowid, agent_id FROM agents").fetchall())
        await revived.register(agent("a"), sees("a", "shop"))
        await revived.register(agent("b", "b2"), sees("b", "shop"))
        await revived.register(agent("c"), sees("c", "cart"))
        revived.flush()
        now = await control.read(lambda cursor: cursor.execute("SELECT rowid, agent_id, boot_id FROM agents").fetchall())
        same = set(rows) & {(row, name) for row, name, _ in now}
        assert ({name for _, name in same}, sorted((name, boot) for _, name, boot in now)) == (
            {"a", "c"}, [("a", "b1"), ("b", "b2"), ("c", "b1")],
        )  # fmt: skip
        await control.write(lambda connection: None)
        seen = await control.read(lambda cursor: cursor.execute("SELECT name, agent_id FROM services").fetchall())
        assert sorted(seen) == [("cart", "c"), ("shop", "a"), ("shop", "b")]
        await control.close()

    asyncio.run(run())


def test_nobody_asks_a_large_fleet_at_random(tmp_path: Path) -> None:
    """A service that none of very many agents reports is not found, with the nearest names, and nobody is asked."""

    async def run() -> None:
        control = Database(tmp_path / "control.duckdb", CONTROL)
        await control.open()
        registry = Registry(control, offline_after_s=5)
        names = [f"host-{number:03}" for number in range(ASKED_AT_RANDOM + 1)]
        await asyncio.gather(*(registry.register(agent(name), sees(name, "checkout")) for name in names))
        assert len(registry.hosts_of("checkout")) == len(names)
        with pytest.raises(NotFound, match="257 are too many to ask each of them") as refused:
            registry.hosts_of("chekout")
        assert "Did you mean checkout?" in refused.value.hint
        kept = await control.read(lambda cursor: cursor.execute("SELECT count(*) FROM agents").fetchone())
        assert kept == (len(names),)
        first = list(islice(registry.services_after(), 100))
        rest = list(registry.services_after("", (first[-1].name, first[-1].agent_id)))
        assert [one.agent_id for one in first + rest] == names
        await control.close()

    asyncio.run(run())
