"""The audit log of a colony: what it holds of calls, how it is read, checked and pruned; and the removal of data."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest
from support.running_colony import attach_request, ended, eventually, running_colony, stored, table
from support.synthetic_agent import SyntheticAgent

from coral.client.audit import AuditClient
from coral.client.colony import ColonyClient
from coral.colony.audit import Audit
from coral.colony.audit.reading import export
from coral.colony.audit.retention import prune
from coral.colony.audit.verification import verify
from coral.colony.store.database import Database
from coral.colony.store.schema import CONTROL
from coral.model.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from coral.model.principal import Kind, Principal
from coral.trust.chain import parse
from coral.trust.evidence import check
from coral.wire._generated.colony.v1 import audit_pb2
from coral.wire.convert import timestamp

ANN = Principal(name="ann", kind=Kind.USER, address="127.0.0.1:9")


async def _query(client: ColonyClient, *, limit: int = 0, **fields: Any) -> list[audit_pb2.AuditRecord]:
    return [record async for record in AuditClient(client).query(audit_pb2.QueryAuditRequest(**fields), limit=limit)]


async def _export(client: ColonyClient) -> list[bytes]:
    return b"".join([lines async for lines in AuditClient(client).export()]).splitlines()


def test_what_the_log_tells(tmp_path: Path) -> None:
    """Records are found by who, what, when, on what and how it was decided; all of them are exported as they are kept."""

    async def run() -> None:
        async with (
            SyntheticAgent() as agent,
            running_colony(tmp_path) as colony,
            ColonyClient(colony, caller="ann@laptop") as ann,
            ColonyClient(colony, caller="bob@laptop") as bob,
        ):
            await agent.report_to(colony)
            session_id = (await ann.attach(attach_request(reason="INC-7"))).session_id
            await bob.detach(session_id)
            with pytest.raises(NotFound):
                await bob.detach("nothing")
            mine = await _query(ann, session_id=session_id)
            assert [(one.principal, one.action, one.outcome, one.reason) for one in mine] == [
                ("bob@laptop", "DetachUprobe", "ok", ""),
                ("bob@laptop", "DetachUprobe", "started", ""),
                ("ann@laptop", "AttachUprobe", "ok", "INC-7"),
                ("ann@laptop", "AttachUprobe", "started", "INC-7"),
            ]
            assert [one.sequence for one in await _query(ann, session_id=session_id, limit=2)] == [
                one.sequence for one in mine[:2]
            ]
            refused = await _query(ann, principal="bob@laptop", decision="error")
            assert [(one.action, one.outcome, one.session_id) for one in refused] == [
                ("DetachUprobe", "NOT_FOUND", "nothing")
            ]
            assert await _query(ann, action="AttachUprobe", until=timestamp(time.time_ns() - 10**12)) == []
            assert len(await _query(ann, action="AttachUprobe", service_name="checkout", since=timestamp(1))) == 2
            for wrong in (
                {"decision": "maybe"},
                {"since": timestamp(9), "until": timestamp(5)},
                {"principal": "a\nb"},
                {"since": timestamp(2**62 * 10**9)},
            ):
                with pytest.raises(InvalidArgument):
                    await _query(ann, **wrong)
            exported = await _export(ann)
            assert exported == (tmp_path / "audit.jsonl").read_bytes().splitlines()[: len(exported)]
            report = check(lambda: exported)
            assert (report.problem, report.first) == (None, 1)
            assert [parse(line).action for line in exported[-2:]] == ["ExportAudit", "AuditCheckpoint"]
            found = await AuditClient(ann).verify()
            assert found.ok
            assert found.table.last_sequence == found.copy.last_sequence == report.head.sequence + 2

    asyncio.run(run())


def test_an_attach_without_a_record_is_refused(tmp_path: Path) -> None:
    """With the copy taken away: UNAVAILABLE with the reason, within a second, and no agent is asked."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)
            kept = (await client.attach(attach_request())).session_id
            (tmp_path / "audit.jsonl").rename(tmp_path / "away")
            before = time.monotonic()
            with pytest.raises(Unavailable, match=r"audit log cannot be written \(.*was moved away\)"):
                await client.attach(attach_request("pricing"))
            assert time.monotonic() - before < 1.0
            assert [request.service_name for request in agent.started] == ["checkout"]
            (tmp_path / "away").rename(tmp_path / "audit.jsonl")
            assert (await client.session(kept)).status == "active"

    asyncio.run(run())


def test_running_sessions_follow_the_setting(tmp_path: Path) -> None:
    """With ``audit_failure: detach`` what runs is ended as soon as the log cannot be written, and says why."""

    async def run() -> None:
        async with (
            SyntheticAgent() as agent,
            running_colony(tmp_path, audit_failure="detach") as colony,
            ColonyClient(colony) as client,
        ):
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            (tmp_path / "audit.jsonl").rename(tmp_path / "away")
            async with asyncio.timeout(5):
                await eventually(lambda: asyncio.sleep(0, agent.stopped))
            (tmp_path / "away").rename(tmp_path / "audit.jsonl")
            session = await ended(client, session_id)
            assert (session.status, session.reason_code) == ("detached", "limit")
            assert "audit log cannot be written" in session.reason

    asyncio.run(run())


def _files(folder: Path) -> list[Path]:
    """The files of the copy, oldest first."""
    return sorted(folder.glob("audit*.jsonl"))


def test_old_records_go_and_the_rest_still_holds(tmp_path: Path) -> None:
    """Retention removes whole files and their rows, says so in a signed checkpoint, and what is left verifies."""

    async def run() -> None:
        database = Database(tmp_path / "control.duckdb", CONTROL)
        await database.open()
        audit = Audit(database, folder=tmp_path, copy_bytes=4000)
        await audit.open()
        for _ in range(30):
            await audit.before(audit.entry(ANN, "ListAgents"))
        await audit.flush()
        now_ns = time.time_ns()
        assert await prune(audit, retention_s=3600, now_ns=now_ns) == 1
        middle = parse(_files(tmp_path)[1].read_bytes().splitlines()[0])
        assert middle.sequence > 5
        cutoff = database.read(
            lambda cursor: cursor.execute(
                "SELECT epoch_ns(time) FROM audit_log WHERE sequence = ?", [middle.sequence]
            ).fetchone()
        )
        cutoff_ns = (await cutoff)[0]  # type: ignore[index]
        assert await prune(audit, retention_s=60, now_ns=cutoff_ns + 60 * 10**9) == middle.sequence
        found = await verify(audit)
        assert found.ok, found
        assert found.copy is not None
        assert found.table.first == found.copy.first == middle.sequence
        # And all of them, the file that is written included.
        assert await prune(audit, retention_s=60, now_ns=now_ns + 10**12) == 32
        found = await verify(audit)
        assert found.ok, found
        assert (found.table.first, found.table.head.sequence) == (32, 32)
        assert _files(tmp_path) == [tmp_path / "audit.jsonl"]
        await audit.close()
        await database.close()
        (tmp_path / "audit.jsonl").write_bytes(b"")
        database = Database(tmp_path / "control.duckdb", CONTROL)
        await database.open()
        audit = Audit(database, folder=tmp_path)
        await audit.open()
        await audit.before(audit.entry(ANN, "ListAgents"))
        found = await verify(audit)
        assert found.table.problem is None
        assert found.copy is not None
        assert found.copy.problem is not None
        assert found.copy.problem.sequence == 32
        await audit.close()
        await database.close()

    asyncio.run(run())


def _marked(folder: Path, session_id: str) -> list[str]:
    """The files of events that hold a mark."""
    return [path.name for path in folder.glob("events.duckdb*") if b"QWERTZUIOP-" + session_id.encode() in path.read_bytes()]


def test_what_is_purged_is_gone(tmp_path: Path) -> None:
    """Ended sessions go with their events, out of the files too; what runs and what was not meant stays; it is audited."""

    async def run() -> None:
        async with SyntheticAgent() as agent:
            ids = []
            async with running_colony(tmp_path) as colony, ColonyClient(colony) as client:
                await agent.report_to(colony)
                for service in ("checkout", "pricing", "checkout"):
                    ids.append((await client.attach(attach_request(service))).session_id)
                    list(agent.collectors.values())[-1].emit([5] * 10)
                    await stored(client, ids[-1], 10)
                    await client.detach(ids[-1])
            with duckdb.connect(str(tmp_path / "events.duckdb")) as connection:
                connection.execute(
                    "INSERT INTO detailed_events SELECT plain_events.*, "
                    "[{'name': 'card', 'type': 'string', 'value': 'QWERTZUIOP-' || session_id}], NULL, NULL "
                    "FROM plain_events JOIN event_sources USING (source)"
                )
                connection.execute("DELETE FROM plain_events")
            assert all(_marked(tmp_path, one) for one in ids)
            async with running_colony(tmp_path) as colony, ColonyClient(colony, caller="dpo") as client:
                await agent.report_to(colony)
                runs = (await client.attach(attach_request())).session_id
                purge = AuditClient(client).purge
                with pytest.raises(InvalidArgument, match="would remove everything"):
                    await purge(audit_pb2.PurgeDataRequest())
                with pytest.raises(FailedPrecondition, match="runs"):
                    await purge(audit_pb2.PurgeDataRequest(session_id=runs))
                with pytest.raises(NotFound):
                    await purge(audit_pb2.PurgeDataRequest(session_id="nothing"))
                asked = audit_pb2.PurgeDataRequest(service_name="checkout", reason="request 12")
                asked.dry_run = True
                would = await purge(asked)
                assert [one.session_id for one in would.sessions] == [ids[0], ids[2]]
                assert (would.session_count, would.event_count) == (2, 20)
                asked.dry_run = False
                reading = asyncio.create_task(table(client, "SELECT DISTINCT session_id FROM uprobe_events"))
                gone = await purge(asked)
                assert list(gone.sessions) == list(would.sessions)
                await reading
                assert {row["session_id"] for row in await table(client, "SELECT session_id FROM debug_sessions")} == {
                    ids[1], runs,
                }  # fmt: skip
                list(agent.collectors.values())[-1].emit([5])
                await stored(client, runs, 1)
                records = await _query(client, action="PurgeData", principal="dpo")
                assert [(one.outcome, one.reason) for one in records][:4] == [
                    ("ok", "request 12"),
                    ("started", "request 12"),
                    ("ok", "dry run. request 12"),
                    ("started", "dry run. request 12"),
                ]
            assert [_marked(tmp_path, one) for one in ids] == [[], ["events.duckdb"], []]

    asyncio.run(run())


def test_a_log_too_long_for_sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More records than may be copied are read where they are, by statements that name nothing else: it has secrets."""
    monkeypatch.setattr("coral.colony.inspect.MAX_COPIED_ROWS", 3)

    async def run() -> None:
        async with running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await client.agents()
            await client.agents()
            counted = "SELECT count(*) AS records FROM audit_log WHERE action = 'ListAgents'"
            assert await table(client, counted) == [{"records": 4}]
            assert await table(client, "SELECT 1 AS one") == [{"one": 1}]
            for other in (
                ", uprobe_events",
                ", access_tokens",
                ", (SUMMARIZE access_tokens)",
                ", (DESCRIBE access_tokens)",
                ", duckdb_tables()",
                " WHERE EXISTS (FROM access_tokens)",
                " UNION ALL BY NAME FROM access_tokens",
            ):
                with pytest.raises((FailedPrecondition, InvalidArgument), match=r"audit_log has \d|access_tokens"):
                    await table(client, f"SELECT * FROM audit_log{other}")
            with pytest.raises(FailedPrecondition, match=r"audit_log has \d+ rows.*coral audit query"):
                await table(client, f"WITH named AS ({counted}) SELECT * FROM named, audit_log")

    asyncio.run(run())


def test_lines_of_a_table(tmp_path: Path) -> None:
    """A log in memory is exported from its table, in the same form."""

    async def run() -> None:
        database = Database(None, CONTROL)
        await database.open()
        audit = Audit(database)
        await audit.open()
        for number in range(3):
            await audit.before(audit.entry(ANN, "ListAgents", reason=f"{number}"))
        lines = b"".join([part async for part in export(audit)]).splitlines()
        assert [json.loads(line)["reason"] for line in lines[:3]] == ["0", "1", "2"]
        assert json.loads(lines[3])["action"] == "AuditCheckpoint"
        assert check(lambda: lines, known=audit.writer.head).problem is None
        await audit.close()
        await database.close()

    asyncio.run(run())
