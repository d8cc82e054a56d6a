"""Reading sessions and events: pages over a snapshot, followers, SQL."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import timestamp_pb2
from support.running_colony import attach_request, eventually, running_colony, stored, table
from support.synthetic_agent import SyntheticAgent

from coral.client.colony import ColonyClient
from coral.colony.inspect import Inspector
from coral.colony.store.database import Database
from coral.colony.store.schema import CONTROL, EVENTS
from coral.events.batch import decode
from coral.model.errors import DeadlineExceeded, InvalidArgument, NotFound
from coral.wire import convert
from coral.wire._generated.colony.v1 import debug_pb2


def _query(session_id: str, **fields: Any) -> debug_pb2.QueryUprobeEventsRequest:
    return debug_pb2.QueryUprobeEventsRequest(session_id=session_id, **fields)


def test_pages_show_the_snapshot_of_the_first(tmp_path: Path) -> None:
    """Pages over two collectors, read while more events come, hold exactly what the first one pinned, each once, in order."""

    async def run() -> None:
        async with (
            SyntheticAgent("a") as first,
            SyntheticAgent("b") as second,
            running_colony(tmp_path) as colony,
            ColonyClient(colony) as client,
        ):
            await first.report_to(colony)
            await second.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            for _ in range(5):
                first.only.emit(range(1, 101))
                second.only.emit(range(1, 101))
            await stored(client, session_id, 1000)
            seen = []
            page = await client.query_events(_query(session_id, max_events=300))
            while True:
                seen += [(convert.timestamp_ns(one.timestamp), one.collector_id, one.sequence) for one in page.events]
                first.only.emit([7] * 50)
                await stored(client, session_id, 1000 + len(seen) // 6)
                assert page.has_more == bool(page.next_page_token)
                if not page.has_more:
                    break
                page = await client.query_events(_query(session_id, max_events=300, page_token=page.next_page_token))
            assert len(seen) == 1000
            assert seen == sorted(set(seen))
            assert {sequence for _, collector_id, sequence in seen if collector_id == first.only.collector_id} == set(
                range(1, 501)
            )
            assert len((await client.query_events(_query(session_id, max_events=10_000))).events) > 1000

    asyncio.run(run())


def test_rules_of_a_query(tmp_path: Path) -> None:
    """Times are inclusive and exclusive, 0 means 1,000, tokens belong to their query, and what cannot be is refused."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            agent.only.emit([5] * 1500)
            await stored(client, session_id, 1500)
            default = await client.query_events(_query(session_id))
            assert (len(default.events), default.has_more) == (1000, True)
            assert default.ledger.stored == 1500
            event = default.events[0]
            assert (event.event_type, event.function_name, event.pid, event.tid) == ("return", "main.Pay", 4411, 4415)
            start, end = default.events[10].timestamp, default.events[20].timestamp
            between = await client.query_events(_query(session_id, start_time=start, end_time=end))
            assert list(between.events) == list(default.events[10:20])
            assert not between.has_more
            none = await client.query_events(_query(session_id, end_time=timestamp_pb2.Timestamp(seconds=1)))
            assert not none.events
            for wrong in (
                {"max_events": -1},
                {"max_events": 10_001},
                {"page_token": "nonsense"},
                {"page_token": default.next_page_token, "start_time": start},
                {"start_time": end, "end_time": start},
            ):
                with pytest.raises(InvalidArgument):
                    await client.query_events(_query(session_id, **wrong))
            with pytest.raises(NotFound):
                await client.query_events(_query("01AAAAAAAAAAAAAAAAAAAAAAAA"))
            with pytest.raises(InvalidArgument):
                await client.query_events(_query(""))

    asyncio.run(run())


def test_list_of_sessions(tmp_path: Path) -> None:
    """Sessions are listed newest first, by service and status, page by page, running ones as they are now."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)
            ids = [(await client.attach(attach_request())).session_id for _ in range(5)]
            other = (await client.attach(attach_request("pricing"))).session_id
            await client.detach(ids[0])
            assert [one.session_id async for one in client.sessions()] == [other, *ids[::-1]]
            assert [one.session_id async for one in client.sessions(service_name="pricing")] == [other]
            assert [one.session_id async for one in client.sessions(status="detached")] == [ids[0]]
            with pytest.raises(InvalidArgument, match="pending, active"):
                [one async for one in client.sessions(status="running")]
            seen = []
            request = debug_pb2.ListDebugSessionsRequest(service_name="checkout", page_size=2)
            while True:
                page = await client.call(client._debug.ListDebugSessions, request, 5.0)
                seen.append([one.session_id for one in page.sessions])
                if not page.next_page_token:
                    break
                request.page_token = page.next_page_token
            assert seen == [[ids[4], ids[3]], [ids[2], ids[1]], [ids[0]]]

    asyncio.run(run())


async def _follow(client: ColonyClient, session_id: str, after: dict[str, int] | None = None) -> list[Any]:
    return [batch async for batch in client.follow(session_id, after=after or {}, timeout_s=30)]


def _sequences(batches: list[Any]) -> list[int]:
    return [number for one in batches for number in decode(one.arrow_ipc)["sequence"].to_pylist()]


def test_followers(tmp_path: Path) -> None:
    """A follower gets what is stored, what comes, and one final batch; a late one the same; one that resumes the rest."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            agent.only.emit([5] * 100)
            await stored(client, session_id, 100)
            following = asyncio.create_task(_follow(client, session_id))
            for _ in range(20):
                agent.only.emit([6] * 100)
                await asyncio.sleep(0.02)
            await client.detach(session_id)
            batches = await following
            assert _sequences(batches) == list(range(1, 2101))
            assert [one.final for one in batches] == [False] * (len(batches) - 1) + [True]
            last = batches[-1]
            assert (last.status, last.reason_code, last.ledger.stored, last.ledger.balanced) == (
                "detached",
                "user",
                2100,
                True,
            )
            assert {one.collector_id for one in batches[:-1]} == {agent.only.collector_id}
            late = await _follow(client, session_id)
            assert _sequences(late) == list(range(1, 2101))
            assert late[-1] == last
            rest = await _follow(client, session_id, {agent.only.collector_id: 2000})
            assert _sequences(rest) == list(range(2001, 2101))
            with pytest.raises(NotFound):
                await _follow(client, "01AAAAAAAAAAAAAAAAAAAAAAAA")

    asyncio.run(run())


def test_a_follower_that_does_not_read(tmp_path: Path) -> None:
    """A follower that stands still does not hold up the ingest, and gets everything when it goes on."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            stream = client.follow(session_id, after={}, timeout_s=60)
            batches = [await anext(stream)]
            for _ in range(30):
                agent.only.emit([6] * 5000)
                await asyncio.sleep(0.01)
            await stored(client, session_id, 150_000)
            await client.detach(session_id)
            batches += [batch async for batch in stream]
            assert _sequences(batches) == list(range(1, 150_001))
            assert batches[-1].final

    asyncio.run(run())


def test_tables_of_both_files_in_one_query(tmp_path: Path) -> None:
    """One statement joins events with sessions; its result is Arrow; times stay times."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            agent.only.emit([5, 7])
            await client.detach(session_id)
            joined = (
                "SELECT s.status, sum(e.duration_ns)::BIGINT AS total "
                "FROM uprobe_events e JOIN debug_sessions s USING (session_id) GROUP BY ALL"
            )
            assert await table(client, joined) == [{"status": "detached", "total": 12}]
            (row,) = await table(client, "SELECT started_at, stored FROM debug_sessions, collector_progress")
            assert abs(row["started_at"].timestamp() - time.time()) < 60
            assert row["stored"] == 2
            assert {row["name"] for row in await table(client, "SHOW TABLES")} == {
                "agents", "audit_log", "collector_progress", "debug_collectors", "debug_instances", "debug_sessions",
                "detailed_events", "event_sources", "plain_events", "schema_migrations", "services", "session_results",
                "uprobe_events",
            }  # fmt: skip
            assert len(await table(client, "DESCRIBE audit_log")) == 15
            assert await table(client, "EXPLAIN SELECT * FROM agents")

    asyncio.run(run())


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "SELECT 1; SELECT 2",
        "DELETE FROM uprobe_events",
        "DROP TABLE uprobe_events",
        "WITH x AS (SELECT 1) INSERT INTO uprobe_events SELECT * FROM uprobe_events",
        "EXPLAIN ANALYZE DELETE FROM uprobe_events",
        "COPY uprobe_events TO '/tmp/x.csv'",
        "ATTACH '/tmp/x.duckdb'",
        "INSTALL httpfs",
        "SET memory_limit = '10GB'",
        "PRAGMA enable_profiling",
        "CHECKPOINT",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM enable_logging(storage := 'file', storage_path := '/tmp/x')",
        "SELECT (SELECT count(*) FROM checkpoint())",
        "SELECT * FROM query('SELECT * FROM checkpoint()')",
        "SELECT * FROM arrow_scan(1, 2, 3)",
        "SELECT sleep_ms(100)",
        "SELECT * FROM nothing",
        "SELEC 1",
        "SELECT '" + "x" * 100_000 + "'",
    ],
)
def test_what_a_query_may_not_do(tmp_path: Path, sql: str) -> None:
    """Whatever is not a single statement that reads tables is INVALID_ARGUMENT, and changes nothing."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            agent.only.emit([5, 7])
            await client.detach(session_id)
            with pytest.raises(InvalidArgument):
                await client.query_database(sql)
            assert await table(client, "SELECT count(*) AS n FROM uprobe_events") == [{"n": 2}]

    asyncio.run(run())


def test_a_statement_is_taken_apart_without_opening_files(tmp_path: Path) -> None:
    """IMPORT DATABASE is replaced by what its files hold as soon as it is parsed; they are not even looked at."""
    (tmp_path / "schema.sql").write_text("SELECT 1;")
    (tmp_path / "load.sql").write_text("")

    async def run() -> None:
        async with running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            with pytest.raises(InvalidArgument, match="file system operations are disabled"):
                await client.query_database(f"IMPORT DATABASE '{tmp_path}'")

    asyncio.run(run())


def test_large_and_long_queries(tmp_path: Path) -> None:
    """A result above 100,000 rows is cut and says so; a statement that takes too long is stopped, and the colony lives on."""

    async def run() -> None:
        control, events = Database(tmp_path / "c.duckdb", CONTROL), Database(tmp_path / "e.duckdb", EVENTS)
        await control.open()
        await events.open()
        inspector = Inspector(control, events)
        assert (await inspector.query("SELECT * FROM range(100001)")).truncated
        assert not (await inspector.query("SELECT * FROM range(100000)")).truncated
        wide = await inspector.query("SELECT repeat('x', 1000) FROM range(100000)")
        assert wide.truncated
        assert len(wide.arrow_ipc) < 16 << 20
        with pytest.raises(DeadlineExceeded):
            await inspector.query("SELECT count(*) FROM range(100000000000) a", timeout_s=0.3)
        assert not (await inspector.query("SELECT 1")).truncated
        await control.close()
        await events.close()

    asyncio.run(run())


def test_registry(tmp_path: Path) -> None:
    """Agents and services are known with all their fields, also after a restart, and go offline when silent."""

    async def run() -> None:
        async with SyntheticAgent(services=["checkout", "pricing"]) as agent:
            async with running_colony(tmp_path) as colony, ColonyClient(colony) as client:
                await agent.report_to(colony)
                (known,) = await client.agents()
                assert (known.agent_id, known.address, known.status, known.version) == (
                    "agent-1",
                    agent.address,
                    "online",
                    "0.1.0",
                )
                assert (known.hostname, known.boot_id, known.kernel) == ("host-of-agent-1", agent.boot_id, "6.18.44")
                assert (list(known.methods), abs(known.last_seen_at.seconds - time.time()) < 10) == (["uprobe_multi"], True)
                services = [(one.name, one.agent_id, one.instances, one.rule) for one in await client.services()]
                assert services == [("checkout", "agent-1", 1, "executable"), ("pricing", "agent-1", 1, "executable")]
                agent.services.append("started-later")

                async def seen() -> bool:
                    return "started-later" in {one.name for one in await client.services()}

                await eventually(seen, within_s=1.0)
            await agent.kill()
            async with running_colony(tmp_path) as colony, ColonyClient(colony) as client:
                assert [one.agent_id for one in await client.agents()] == ["agent-1"]
                rows = await table(client, "SELECT name FROM services ORDER BY name")
                assert [row["name"] for row in rows] == ["checkout", "pricing", "started-later"]

    asyncio.run(run())
