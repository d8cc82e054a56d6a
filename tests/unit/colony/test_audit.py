"""The audit log: two copies of one chain, written before the act, whole again after a crash."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from coral.colony.audit import Audit, Entry, table
from coral.colony.audit.copy import Copy
from coral.colony.audit.folding import ADDRESSES, KINDS, WINDOW_S, Folding
from coral.colony.audit.retention import prune
from coral.colony.store.database import Database
from coral.colony.store.schema import CONTROL
from coral.model.errors import FailedPrecondition, NotFound, Unauthenticated, Unavailable
from coral.model.principal import Kind, Principal, Role
from coral.trust.chain import Record, parse
from coral.trust.evidence import Head, Report, check

ANN = Principal(name="ann", kind=Kind.USER, roles=(Role.OPERATOR,), address="127.0.0.1:9")


@asynccontextmanager
async def _log(folder: Path | None, **options: Any) -> AsyncIterator[Audit]:
    """A log over ``folder``, or in memory, without anything that runs by the clock."""
    database = Database(folder and folder / "control.duckdb", CONTROL)
    await database.open()
    audit = Audit(database, folder=folder, **options)
    await audit.open()
    try:
        yield audit
    finally:
        await audit.close()
        await database.close()


def _copied(folder: Path) -> list[Record]:
    """What the copy holds."""
    return [parse(line) for line in (folder / "audit.jsonl").read_bytes().splitlines()]


def _rows(folder: Path) -> list[Record]:
    """What the table holds, once the colony has ended."""
    with duckdb.connect(str(folder / "control.duckdb")) as connection:
        return [parse(line) for line in table.lines(connection, begins=1, upto=10**9)]


async def _check(audit: Audit) -> tuple[Report, Report]:
    """Both copies against the head that the log has in mind."""
    await audit.flush()
    head, keys = audit.writer.head, {audit.key.id: audit.key.public}
    copy = audit.copy
    assert copy is not None
    rows = await audit.database.read(lambda cursor: list(table.lines(cursor, begins=1, upto=head.sequence)))
    return check(lambda: rows, keys=keys, known=head), check(lambda: copy.lines_from(0), keys=keys, known=head)


def test_an_act_is_two_records_in_two_copies(tmp_path: Path) -> None:
    """What is done is written before and after, the same in table and copy, with a checkpoint at the end; and on it goes."""

    async def run() -> None:
        for _ in range(2):
            async with _log(tmp_path) as audit:
                entry = audit.entry(ANN, "AttachUprobe", service_name="a\x1b" + "x" * 2000, reason="INC-7")
                await audit.before(entry)
                assert [record.outcome for record in _copied(tmp_path)][-1] == "started"
                audit.outcome(entry, NotFound("No."), agent_id="agent-1")
                async with audit.noting(audit.entry(ANN, "ListAgents")):
                    pass
                with pytest.raises(KeyError):
                    async with audit.noting(audit.entry(ANN, "ListServices")):
                        raise KeyError
                await audit.denied(audit.entry(ANN, "CreateToken"), Unauthenticated("No token."))

    asyncio.run(run())
    records = _copied(tmp_path)
    assert records == _rows(tmp_path)
    assert check(lambda: [record.line() for record in records]).problem is None
    once = [
        ("AttachUprobe", "allow", "started", "INC-7", ""),
        ("AttachUprobe", "error", "NOT_FOUND", "INC-7", "agent-1"),
        ("ListAgents", "allow", "started", "", ""),
        ("ListAgents", "allow", "ok", "", ""),
        ("ListServices", "allow", "started", "", ""),
        ("ListServices", "error", "INTERNAL", "", ""),
        ("CreateToken", "deny", "UNAUTHENTICATED", "No token.", ""),
    ]
    told = [(one.action, one.decision, one.outcome, one.reason, one.agent_id) for one in records if one.principal == "ann"]
    assert told == once * 2
    assert [record.sequence for record in records if record.action == "AuditCheckpoint"] == [8, 16]
    assert records[0].service_name == "a\\x1b" + "x" * 1019
    assert (records[0].role, records[0].address) == ("operator", "127.0.0.1:9")
    assert (tmp_path / "audit-checkpoint.json").read_bytes() == records[-1].line() + b"\n"
    for name in ("audit.jsonl", "audit-checkpoint.json", "audit.key"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_in_memory_there_is_a_table_alone() -> None:
    """A log in memory has rows, chained, and no file."""

    async def run() -> None:
        async with _log(None) as audit:
            await audit.before(audit.entry(ANN, "AttachUprobe"))
            await audit.flush()
            rows = await audit.database.read(lambda cursor: list(table.lines(cursor, begins=1, upto=9)))
            assert check(lambda: rows, known=audit.writer.head).records == 1

    asyncio.run(run())


def test_rows_from_before_the_chain_stay_beside_it(tmp_path: Path) -> None:
    """A table of an earlier Coral keeps its rows; the chain begins after them, and nothing is missing."""

    async def run() -> None:
        database = Database(tmp_path / "control.duckdb", CONTROL)
        await database.open()
        await database.write(
            lambda connection: connection.execute(
                "INSERT INTO audit_log BY NAME SELECT 7 AS sequence, now() AS time, 'old' AS principal, '' AS role, '' AS "
                "address, 'X' AS action, '' AS service_name, '' AS function_name, '' AS session_id, '' AS agent_id, "
                "'' AS reason, 'allow' AS decision, 'ok' AS outcome"
            )
        )
        await database.close()
        for round_ in range(2):
            async with _log(tmp_path) as audit:
                await audit.before(audit.entry(ANN, "ListAgents"))
                assert audit.writer.begins == 8
                assert audit.writer.head.sequence == 8 + 2 * round_

    asyncio.run(run())
    assert [record.sequence for record in _copied(tmp_path)] == [8, 9, 10, 11]


def _tamper(folder: Path, sql: str) -> None:
    with duckdb.connect(str(folder / "control.duckdb")) as connection:
        connection.execute(sql)


@pytest.fixture(scope="module")
def forty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a log with forty records and a checkpoint, that was closed in order."""
    folder = tmp_path_factory.mktemp("forty")

    async def run() -> None:
        async with _log(folder) as audit:
            for number in range(40):
                await audit.before(audit.entry(ANN, "ListAgents", reason=f"INC-{number}"))

    asyncio.run(run())
    return folder


def _edit(folder: Path, change: Callable[[list[bytes]], object]) -> None:
    path = folder / "audit.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    change(lines)
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("where", "change", "sequence"),
    [
        ("table", "UPDATE audit_log SET reason = 'INC-X' WHERE sequence = 20", 20),
        ("table", "DELETE FROM audit_log WHERE sequence = 20", 20),
        ("table", "DELETE FROM audit_log WHERE sequence = 41", 41),
        ("table", "UPDATE audit_log SET sequence = 41 - sequence WHERE sequence IN (20, 21)", 20),
        ("copy", lambda lines: lines.pop(19), 20),
        ("copy", lambda lines: lines.pop(), 41),
        ("copy", lambda lines: lines.insert(19, lines.pop(20)), 20),
        ("both", lambda lines: lines.__delitem__(slice(35, None)), 36),
    ],
)  # fmt: skip
def test_a_restart_repairs_no_evidence(
    forty: Path, tmp_path: Path, where: str, change: str | Callable[[list[bytes]], object], sequence: int
) -> None:
    """What was done to a copy while no colony ran is still found when one runs again, and has written more."""

    async def run() -> None:
        shutil.copytree(forty, tmp_path, dirs_exist_ok=True)
        if isinstance(change, str):
            _tamper(tmp_path, change)
        else:
            _edit(tmp_path, change)
        if where == "both":
            _tamper(tmp_path, "DELETE FROM audit_log WHERE sequence >= 36")
        async with _log(tmp_path) as audit:
            await audit.before(audit.entry(ANN, "ListAgents"))
            assert audit.writer.head.sequence == 42
            found = dict(zip(("table", "copy"), await _check(audit), strict=True))
        for name, report in found.items():
            if where in (name, "both"):
                assert report.problem is not None, name
                assert report.problem.sequence == sequence, report.problem
            else:
                assert report.problem is None, report

    asyncio.run(run())


def test_a_crash_leaves_rows_to_complete(tmp_path: Path) -> None:
    """A colony that is killed between copy and table finds the rows again; half a line is cut off, and nobody misses it."""

    async def run() -> None:
        async with _log(tmp_path) as audit:
            for _ in range(5):
                await audit.before(audit.entry(ANN, "ListAgents"))
        database = Database(tmp_path / "control.duckdb", CONTROL)
        await database.open()
        killed = Audit(database, folder=tmp_path, copy_bytes=1000)
        await killed.open()
        for _ in range(5):
            await killed.before(killed.entry(ANN, "ListAgents"))
        await database.close()  # with the rows not in it
        with (tmp_path / "audit.jsonl").open("ab") as file:
            file.write(b'{"sequence":12,"time":"20')
        async with _log(tmp_path) as audit:
            assert audit.writer.head.sequence == 11
            await audit.before(audit.entry(ANN, "ListAgents"))
            for report in await _check(audit):
                assert (report.records, report.problem) == (12, None)

    asyncio.run(run())


def test_the_copy_is_put_aside_when_it_is_large(tmp_path: Path) -> None:
    """The chain goes on from file to file, over a restart too, and is read as one."""

    async def run() -> None:
        for _ in range(2):
            async with _log(tmp_path, copy_bytes=4000) as audit:
                for _ in range(30):
                    await audit.before(audit.entry(ANN, "ListAgents"))
                assert [report.problem for report in await _check(audit)] == [None, None]
        async with _log(tmp_path) as audit:
            assert audit.writer.head.sequence == 62
            (tmp_path / "audit-0000000000000001.jsonl").unlink()
            rows, copied = await _check(audit)
            assert rows.problem is None
            assert copied.problem is not None
            assert (copied.problem.sequence, copied.problem.kind) == (1, "removed")

    asyncio.run(run())
    kept = sorted(tmp_path.glob("audit-*.jsonl"))
    assert len(kept) >= 3
    assert all(path.stat().st_mode & 0o777 == 0o600 and path.stat().st_size < 6000 for path in kept)


def test_no_audit_no_action(tmp_path: Path) -> None:
    """While the copy cannot be written, or was taken away, nothing may be done, and why is said; then it goes on."""

    async def run() -> None:
        async with _log(tmp_path) as audit:
            entry = audit.entry(ANN, "AttachUprobe")
            await audit.before(entry)
            size = (tmp_path / "audit.jsonl").stat().st_size
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
            try:
                with pytest.raises(Unavailable, match=r"audit log cannot be written \(File too large\)"):
                    await audit.before(entry)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
                signal.signal(signal.SIGXFSZ, ignored)
            assert (tmp_path / "audit.jsonl").stat().st_size == size
            await audit.before(entry)
            aside = tmp_path / "taken"
            (tmp_path / "audit.jsonl").rename(aside)
            with pytest.raises(Unavailable, match="was moved away"):
                await audit.before(entry)
            (tmp_path / "audit.jsonl").write_bytes(aside.read_bytes())
            with pytest.raises(Unavailable, match="was replaced"):
                await audit.before(entry)
            aside.replace(tmp_path / "audit.jsonl")
            with aside.with_name("audit.jsonl").open("ab") as file:
                file.write(b"x")
            with pytest.raises(Unavailable, match="was changed"):
                await audit.before(entry)
            os.truncate(tmp_path / "audit.jsonl", (tmp_path / "audit.jsonl").stat().st_size - 1)
            await audit.before(entry)
            assert [report.problem for report in await _check(audit)] == [None, None]
            assert audit.writer.head.sequence == 3

    asyncio.run(run())


def test_the_table_counts_as_much_as_the_copy(tmp_path: Path) -> None:
    """Once rows cannot be written, nothing may be done until they can; then they are all there."""

    async def run() -> None:
        async with _log(tmp_path) as audit:
            await audit.before(audit.entry(ANN, "ListAgents"))
            await audit.flush()
            await audit.database.write(lambda connection: connection.execute("ALTER TABLE audit_log RENAME TO gone"))
            failed = asyncio.Event()
            audit.on_failure = lambda _: failed.set()
            running = asyncio.create_task(audit.run())
            await audit.before(audit.entry(ANN, "ListAgents"))
            async with asyncio.timeout(5):
                await failed.wait()
            with pytest.raises(Unavailable, match="audit_log"):
                await audit.before(audit.entry(ANN, "ListAgents"))
            await audit.database.write(lambda connection: connection.execute("ALTER TABLE gone RENAME TO audit_log"))
            await audit.before(audit.entry(ANN, "ListAgents"))
            running.cancel()
            assert [(report.records, report.problem) for report in await _check(audit)] == [(3, None)] * 2

    asyncio.run(run())


def test_a_key_that_is_not_there_any_more(tmp_path: Path) -> None:
    """A log whose key was replaced goes on, its old checkpoints are not the new key's; what is no file is refused."""

    async def run() -> None:
        async with _log(tmp_path) as audit:
            await audit.before(audit.entry(ANN, "ListAgents"))
        for name in ("audit.key", "audit.pub"):
            (tmp_path / name).unlink()
        async with _log(tmp_path) as audit:
            assert audit.writer.head.sequence == 2
            _, copied = await _check(audit)
            assert copied.problem is not None
            assert (copied.problem.sequence, copied.problem.kind) == (2, "forged")
        (tmp_path / "audit.jsonl").unlink()
        (tmp_path / "audit.jsonl").mkdir()
        with pytest.raises(FailedPrecondition, match="cannot be used"):
            async with _log(tmp_path):
                pass

    asyncio.run(run())


def _refusal(address: str = "10.0.0.1:4000", **fields: str) -> Entry:
    return Entry(
        **{"principal": "", "role": "", "address": address, "action": "AttachUprobe", "reason": "No token.", **fields},
        decision="deny",
        outcome="UNAUTHENTICATED",
    )


def test_refusals_are_folded() -> None:
    """The first of a kind is written at once, the rest as one with their number; ports do not make a difference."""
    folding = Folding()
    assert folding.take(_refusal(), 0.0) == _refusal()
    assert [folding.take(_refusal(f"10.0.0.1:{port}"), 1.0) for port in range(57)] == [None] * 57
    assert folding.take(_refusal("10.0.0.2:1"), 1.0) is not None
    assert folding.take(_refusal(action="DetachUprobe"), 1.0) is not None
    assert list(folding.due(WINDOW_S - 1)) == []
    (told,) = folding.due(WINDOW_S + 1)
    assert told.reason == "57 more of these within 10 s: No token."
    assert (told.action, told.decision, told.outcome, told.address) == (
        "AttachUprobe", "deny", "UNAUTHENTICATED", "10.0.0.1:4000",
    )  # fmt: skip
    assert folding.take(_refusal(), WINDOW_S + 2) is not None


def test_folding_has_an_end() -> None:
    """However many kinds and addresses there are, so many are written and no more are kept."""
    folding = Folding()
    written = [folding.take(_refusal(service_name=f"s{number}"), 0.0) for number in range(1000)]
    assert sum(one is not None for one in written) == KINDS + 1
    assert written[KINDS] is not None
    assert written[KINDS].action == "various"
    written = [folding.take(_refusal(f"10.{a}.{b}.2:9"), 0.0) for a in range(100) for b in range(100)]
    assert sum(one is not None for one in written) == ADDRESSES
    (first, last) = folding.due(float("inf"))
    assert first.reason == f"{1000 - KINDS - 1:,} more of these within 10 s"
    assert last.reason.startswith("9,000 more of these")
    assert list(folding.due(float("inf"))) == []


def test_json_of_a_line(tmp_path: Path) -> None:
    """A line has exactly the fields that others rely on, in their order."""

    async def run() -> None:
        async with _log(tmp_path) as audit:
            await audit.before(audit.entry(ANN, "ListAgents"))

    asyncio.run(run())
    line = (tmp_path / "audit.jsonl").read_text().splitlines()[0]
    assert list(json.loads(line)) == [
        "sequence", "time", "principal", "role", "address", "action", "service_name", "function_name", "session_id",
        "agent_id", "reason", "decision", "outcome", "previous_hash", "hash",
    ]  # fmt: skip
    assert Head(sequence=1, hash=json.loads(line)["hash"]) != Head()


def test_a_caller_that_goes_away_does_not_end_the_log(tmp_path: Path) -> None:
    """Whoever stops waiting for the writer, for a record or for a look between two, leaves it at work for all others."""

    async def run() -> None:
        async with _log(tmp_path) as audit:
            held, go = asyncio.Event(), threading.Event()
            loop = asyncio.get_running_loop()

            def slow() -> None:
                loop.call_soon_threadsafe(held.set)
                go.wait(10)

            looking = asyncio.create_task(_waiting(audit.writer.between(slow)))
            await held.wait()
            writing = asyncio.create_task(_waiting(audit.writer.write(audit.entry(ANN, "ListAgents"), sync=True)))
            await asyncio.sleep(0)
            for task in (looking, writing):
                task.cancel()
            await asyncio.wait([looking, writing])
            go.set()
            async with asyncio.timeout(5):
                await audit.before(audit.entry(ANN, "AttachUprobe"))
        assert [record.action for record in _copied(tmp_path)][:2] == ["ListAgents", "AttachUprobe"]

    asyncio.run(run())


async def _waiting(future: Future[Any]) -> Any:
    return await asyncio.wrap_future(future)


def test_a_disk_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is done while the disk hangs, and nobody waits for it without end; what was queued is written after all."""
    monkeypatch.setattr("coral.colony.audit.log._ANSWER_S", 0.1)

    async def run() -> None:
        async with _log(tmp_path) as audit:
            hanging = threading.Event()
            stuck = audit.writer.between(hanging.wait)
            with pytest.raises(Unavailable, match="did not answer within"):
                await audit.before(audit.entry(ANN, "ListAgents"))
            hanging.set()
            await asyncio.wrap_future(stuck)
            monkeypatch.undo()
            await audit.before(audit.entry(ANN, "ListAgents"))
            assert audit.writer.head.sequence == 2

    asyncio.run(run())


def test_records_that_come_while_old_ones_are_looked_for_stay(tmp_path: Path) -> None:
    """A log that is pruned in its first moments keeps what is written meanwhile."""

    async def run() -> None:
        async with _log(tmp_path) as audit:
            entries = [audit.entry(ANN, "ListAgents") for _ in range(50)]
            pruned = asyncio.create_task(prune(audit, retention_s=3600, now_ns=time.time_ns()))
            await asyncio.sleep(0)  # so that it looks first
            written = asyncio.gather(*(audit.before(entry) for entry in entries))
            await asyncio.sleep(0)
            time.sleep(0.2)  # noqa: ASYNC251  (a busy loop: the log's thread is ahead of it)
            assert await pruned == 1
            await written
            assert [report.problem for report in await _check(audit)] == [None, None]

    asyncio.run(run())
    assert [record.action for record in _copied(tmp_path)].count("ListAgents") == 50
    assert _rows(tmp_path) == _copied(tmp_path)


def test_a_file_begins_where_it_began_before_this_process(tmp_path: Path) -> None:
    """What is appended first after a restart is not the first record of the file: retention would let go of those before."""
    copy = Copy(tmp_path, max_bytes=1 << 20)
    copy.open()
    copy.append(b'{"sequence":7,"time":""}\n', first=7, sync=True)
    copy.close()
    again = Copy(tmp_path, max_bytes=1 << 20)
    again.open()
    again.append(b'{"sequence":8,"time":""}\n', first=8, sync=True)
    assert again.first() == 7
    again.close()
