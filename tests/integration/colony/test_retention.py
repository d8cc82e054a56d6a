"""What a colony removes by itself, and what it says where something is gone."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from support.running_colony import attach_request, ended, eventually, running_colony, stored, table
from support.synthetic_agent import SyntheticAgent

from coral.client.audit import AuditClient
from coral.client.colony import ColonyClient
from coral.colony.book import SessionBook
from coral.colony.retention import Limits, Retention, Why
from coral.colony.store import control
from coral.colony.store.database import Database
from coral.colony.store.opening import set_aside_files
from coral.colony.store.schema import CONTROL, EVENTS
from coral.model.errors import NotFound
from coral.wire._generated.colony.v1 import debug_pb2

_EVENTS = 20_000


async def _sessions(folder: Path, *, ended_ones: int) -> list[str]:
    """Some sessions that have ended, and one that runs, each with its events; oldest first."""
    ids = []
    async with SyntheticAgent() as agent, running_colony(folder) as colony, ColonyClient(colony) as client:
        await agent.report_to(colony)
        for number in range(ended_ones + 1):
            ids.append((await client.attach(attach_request())).session_id)
            list(agent.collectors.values())[-1].emit(range(1, _EVENTS + 1))
            await stored(client, ids[-1], _EVENTS)
            if number < ended_ones:
                await client.detach(ids[-1])
                await ended(client, ids[-1])
    return ids


async def _round(folder: Path, limits: Limits) -> tuple[Retention, list[str], list[tuple[str, str]]]:
    """One look of retention at a colony that does not run: it, the sessions with events, and those that lost theirs."""
    control_db, events_db = Database(folder / "control.duckdb", CONTROL), Database(folder / "events.duckdb", EVENTS)
    await control_db.open()
    await events_db.open()
    retention = Retention(control_db=control_db, events_db=events_db, book=SessionBook(control_db), limits=limits)
    await retention.round()
    having = await events_db.read(lambda c: c.execute("SELECT DISTINCT session_id FROM uprobe_events ORDER BY 1").fetchall())
    sessions = await control_db.read(lambda cursor: control.find_sessions(cursor, limit=100))
    gone = sorted((one.session_id, one.events_removed_why) for one in sessions if one.events_removed_at_ns)
    await events_db.close()
    await control_db.close()
    return retention, [session_id for (session_id,) in having], gone


def test_events_go_when_there_is_no_room_for_them(tmp_path: Path) -> None:
    """Those of the session that ended first, then the next; never those of one that runs; each is counted, and says so."""

    async def run() -> None:
        ids = await _sessions(tmp_path, ended_ones=3)
        kept = Limits(sessions_s=3600, events_bytes=1 << 40, free_bytes=0)
        retention, having, gone = await _round(tmp_path, kept)
        assert (having, gone, dict(retention.removed)) == (ids, [], {})
        size = (tmp_path / "events.duckdb").stat().st_size
        retention, having, gone = await _round(
            tmp_path, Limits(sessions_s=3600, events_bytes=size - (200 << 10), free_bytes=0)
        )
        assert having == ids[len(gone) :]
        assert gone == [(session_id, "size") for session_id in ids[: len(gone)]]
        assert 1 <= len(gone) <= 3
        assert retention.removed == {Why.SIZE: len(gone)}
        assert retention.removed_events == {Why.SIZE: _EVENTS * len(gone)}
        retention, having, all_gone = await _round(tmp_path, Limits(sessions_s=3600, events_bytes=0, free_bytes=1 << 60))
        assert having == ids[3:]
        assert all_gone == gone + [(session_id, "free_space") for session_id in ids[len(gone) : 3]]

    asyncio.run(run())


def test_a_session_says_that_its_events_are_gone(tmp_path: Path) -> None:
    """Its row, ledger, statistics and slowest calls stay; asking for its events says when and why they went."""

    async def run() -> None:
        ids = await _sessions(tmp_path, ended_ones=1)
        async with running_colony(tmp_path, keep_free_bytes=1 << 60) as colony, ColonyClient(colony) as client:

            async def gone() -> bool:
                return (await client.session(ids[0])).HasField("events_removed_at")

            await eventually(gone)
            session, results = await client.session(ids[0]), await client.results(ids[0])
            assert (session.status, session.ledger.stored, session.events_removed_why) == ("detached", _EVENTS, "free_space")
            assert results.statistics.total_calls == _EVENTS
            assert results.statistics.duration_max.nanos == _EVENTS
            assert [one.duration.nanos for one in results.slow_outliers] == list(range(_EVENTS, _EVENTS - 10, -1))
            with pytest.raises(NotFound, match=r"gone since 20.*keep_free_bytes"):
                await client.query_events(debug_pb2.QueryUprobeEventsRequest(session_id=ids[0]))
            assert not (await client.session(ids[1])).HasField("events_removed_at")
            assert len((await client.query_events(debug_pb2.QueryUprobeEventsRequest(session_id=ids[1]))).events) == 1000

    asyncio.run(run())


def _damage(path: Path) -> bytes:
    path.write_bytes(path.read_bytes()[:20_000])
    return path.read_bytes()


def test_damaged_events_file(tmp_path: Path) -> None:
    """It is set aside; sessions say that their events are gone, the audit log what happened; new ones are stored."""

    async def run() -> None:
        ids = await _sessions(tmp_path, ended_ones=1)
        broken = _damage(tmp_path / "events.duckdb")
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)

            async def gone() -> bool:
                return (await client.session(ids[0])).events_removed_why == "damage"

            await eventually(gone)
            with pytest.raises(NotFound, match="damaged"):
                await client.query_events(debug_pb2.QueryUprobeEventsRequest(session_id=ids[0]))
            assert (await client.session(ids[0])).ledger.stored == _EVENTS
            new = (await client.attach(attach_request())).session_id
            list(agent.collectors.values())[-1].emit([3] * 10)
            await stored(client, new, 10)
            rows = await table(client, "SELECT reason FROM audit_log WHERE action = 'SetDatabaseAside'")
        (aside,) = set_aside_files(tmp_path)
        assert aside.read_bytes() == broken
        assert [row["reason"].split(" and was")[0] for row in rows] == [f"events.duckdb is kept as {aside.name}"]

    asyncio.run(run())


def test_damaged_control_file(tmp_path: Path) -> None:
    """It is set aside; the rows of the audit log come back from its copy, which says what happened, and verifies whole."""

    async def run() -> None:
        ids = await _sessions(tmp_path, ended_ones=1)
        before = [json.loads(line)["action"] for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
        _damage(tmp_path / "control.duckdb")
        async with running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            assert [one async for one in client.sessions()] == []
            verified = await AuditClient(client).verify()
            actions = [row["action"] for row in await table(client, "SELECT action FROM audit_log ORDER BY sequence")]
            assert verified.ok, verified
            first = actions.index("SetDatabaseAside")
            assert (verified.table.first_sequence, verified.copy.first_sequence) == (1, 1)
            assert actions[:first] == before
            orphans = {row["session_id"] for row in await table(client, "SELECT session_id FROM event_sources")}
            assert orphans == set(ids)
        assert [path.name.partition(".broken-")[0] for path in set_aside_files(tmp_path)] == ["control.duckdb"]
        _, having, _ = await _round(tmp_path, Limits(sessions_s=3600, events_bytes=0, free_bytes=1 << 60))
        assert having == []

    asyncio.run(run())
