"""What a colony tells of itself: metrics that equal its ledgers, and health that follows what it can do."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import duckdb
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families
from support.running_colony import SETTINGS, attach_request, ended, eventually, stored
from support.synthetic_agent import SyntheticAgent

from coral.client.colony import ColonyClient
from coral.colony.daemon import Colony
from coral.colony.store.database import Database
from coral.colony.store.schema import EVENTS
from coral.config.settings import ColonySettings
from coral.model.errors import Unavailable
from coral.telemetry.vitals import Trouble
from coral.trust.audit_files import CURRENT_FILE

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@asynccontextmanager
async def observed(state_dir: Path) -> AsyncIterator[Colony]:
    """A colony that serves its metrics."""
    colony = Colony(
        ColonySettings(listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", state_dir=state_dir, **SETTINGS), grace_s=1.0
    )
    await colony.start()
    stop = asyncio.Event()
    running = asyncio.create_task(colony.run(stop))
    try:
        yield colony
    finally:
        stop.set()
        await running


async def metrics(colony: Colony) -> dict[tuple[str, ...], float]:
    """All samples, by name and the values of their labels, in the order of the labels' names."""

    def read() -> str:
        with urllib.request.urlopen(f"http://{colony.metrics_address}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    families = text_string_to_metric_families(await asyncio.to_thread(read))
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


def test_metrics_equal_the_ledgers(tmp_path: Path) -> None:
    """While sessions run and after they ended, what was stored and what was dropped is in the metrics as in the ledgers."""

    async def scenario() -> None:
        async with (
            SyntheticAgent() as agent,
            observed(tmp_path) as colony,
            ColonyClient(colony.address) as client,
        ):
            await agent.report_to(colony.address)
            ids = []
            for function, kept, lost in (("main.Pay", 700, 30), ("main.Refund", 40, 5)):
                attached = await client.attach(attach_request(function=function))
                ids.append(attached.session_id)
                collector = list(agent.collectors.values())[-1]
                collector.emit(range(1, lost + 1), keep=False)
                collector.emit(range(1, kept + 1))
                await stored(client, attached.session_id, kept)
            running = await metrics(colony)
            assert running["coral_colony_sessions", "active"] == 2
            assert running["coral_colony_collectors", "active"] == 2
            assert running["coral_colony_instances", "attached"] == 2
            await client.detach(ids[0])
            session = await ended(client, ids[0])
            ledgers = [session.ledger, (await client.session(ids[1])).ledger]
            found = await metrics(colony)
            assert found["coral_colony_sessions", "active"] == 1
            assert found["coral_colony_sessions_ended_total", "user", "detached"] == 1
            for name, what in (
                (("coral_colony_events_stored_total",), "stored"),
                (("coral_colony_events_dropped_total",), "queue_dropped"),
                (("coral_colony_events_emitted_total",), "emitted"),
                (("coral_colony_calls_total", "entered"), "entered"),
                (("coral_colony_calls_total", "returned"), "returned"),
                (("coral_colony_calls_not_reported_total", "ring_lost"), "ring_lost"),
            ):
                assert found[name] == sum(getattr(ledger, what) for ledger in ledgers), name
            assert (found["coral_colony_events_stored_total",], found["coral_colony_events_dropped_total",]) == (740, 35)
            assert found["coral_colony_agents", "online"] == 1
            assert found["coral_rpc_answered_total", "OK", "/coral.colony.v1.DebugService/AttachUprobe"] == 2
            assert found["coral_rpc_duration_seconds_count", "/coral.colony.v1.DebugService/AttachUprobe"] == 2
            assert found["coral_colony_commit_seconds_count", "events"] > 0
            assert found["coral_tasks",] > 5
            assert found["coral_colony_audit_records_total",] >= 4
            assert {key[1]: value for key, value in found.items() if key[0] == "coral_part_works"} == dict.fromkeys(
                ("control", "events", "audit"), 1.0
            )
            labels = {value for key in found for value in key[1:]}
            assert not [value for value in labels if re.search("checkout|main|agent-1|127", value)], "labels are bounded"

    asyncio.run(scenario())


def test_health_follows_the_audit_log(tmp_path: Path) -> None:
    """A colony whose audit log is moved away does not serve until it is back, and says so to whoever asks."""

    async def scenario() -> list[int]:
        async with observed(tmp_path) as colony, grpc.aio.insecure_channel(colony.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)

            async def status(service: str = "") -> Any:
                return (await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)).status

            found = [await status()]
            log = tmp_path / CURRENT_FILE
            log.rename(tmp_path / "away")
            assert await eventually(lambda: _is(status(), NOT_SERVING))
            found += [await status("coral.colony.v1.DebugService")]
            assert (await metrics(colony))["coral_part_works", "audit"] == 0
            (tmp_path / "away").rename(log)
            assert await eventually(lambda: _is(status(), SERVING))
            return [*found, await status("coral.colony.v1.DebugService")]

    assert asyncio.run(scenario()) == [SERVING, NOT_SERVING, SERVING]


async def _is(asking: Any, wanted: int) -> bool:
    return bool(await asking == wanted)


def test_a_database_says_when_it_cannot_be_written(tmp_path: Path) -> None:
    """One that is closed after an error says so, and by being looked at comes back without anybody writing."""

    def fail(_: duckdb.DuckDBPyConnection) -> None:
        raise duckdb.IOException("no space left on device")

    async def scenario() -> None:
        database = Database(tmp_path / "events.duckdb", EVENTS)
        assert database.trouble() is None
        await database.open()
        assert database.trouble() is None
        with pytest.raises(Unavailable):
            await database.write(fail)
        assert database.trouble() == Trouble(reason="it was closed after an error")
        async with asyncio.timeout(10):
            while database.trouble() is not None:  # noqa: ASYNC110  (a look is what brings it back)
                await asyncio.sleep(0.05)
        await database.close()

    asyncio.run(scenario())
