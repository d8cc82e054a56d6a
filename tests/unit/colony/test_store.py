"""The database files: migrations, grouped writes, recovery, and what is read back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from coral.colony.store import control, directory
from coral.colony.store.collectors import CollectorRow, put_collectors, put_instances
from coral.colony.store.database import Database
from coral.colony.store.schema import CONTROL, EVENTS, Migration, migrate
from coral.model.addresses import FileOffset
from coral.model.errors import FailedPrecondition, Unavailable
from coral.model.ledger import Ledger, UnknownInterval
from coral.model.service import Agent, Service
from coral.model.session import Collector, Instance, InstanceStatus, ReasonCode, Session, Status
from coral.model.site import Site, SiteKind

ONE = Migration(number=1, name="one", statements=("CREATE TABLE t (a INTEGER)",))
TWO = Migration(number=2, name="two", statements=("ALTER TABLE t ADD COLUMN b INTEGER", "INSERT INTO t VALUES (1, 2)"))


def test_migrations_run_once_and_in_order() -> None:
    """Each step runs once, whatever version the file has; a newer file is refused."""
    connection = duckdb.connect()
    migrate(connection, [ONE], file="x.duckdb")
    for _ in range(2):
        migrate(connection, [ONE, TWO], file="x.duckdb")
    assert connection.execute("SELECT * FROM t").fetchall() == [(1, 2)]
    assert connection.execute("SELECT number, name FROM schema_migrations").fetchall() == [(1, "one"), (2, "two")]
    with pytest.raises(FailedPrecondition, match=r"x\.duckdb has schema 2, this version of Coral knows 1"):
        migrate(connection, [ONE], file="x.duckdb")


def test_failed_migration_leaves_the_old_schema() -> None:
    """A step that fails half-way changes nothing."""
    connection = duckdb.connect()
    migrate(connection, [ONE], file="x")
    broken = Migration(number=2, name="broken", statements=("INSERT INTO t VALUES (1)", "SELECT nonsense"))
    with pytest.raises(duckdb.Error):
        migrate(connection, [ONE, broken], file="x")
    connection.rollback()
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
    assert connection.execute("SELECT max(number) FROM schema_migrations").fetchone() == (1,)


@pytest.mark.parametrize("migrations", [CONTROL, EVENTS])
def test_numbers_of_migrations(migrations: list[Migration]) -> None:
    """They count up from 1."""
    assert [one.number for one in migrations] == list(range(1, len(migrations) + 1))


async def _database(folder: Path) -> Database:
    database = Database(folder / "x.duckdb", [ONE])
    await database.open()
    return database


def _count(connection: duckdb.DuckDBPyConnection) -> int:
    row = connection.execute("SELECT count(*) FROM t").fetchone()
    assert row is not None
    return int(row[0])


def test_one_bad_write_does_not_take_others_with_it(tmp_path: Path) -> None:
    """Of writes that share a transaction only the one at fault fails; the rest is on disk, each once."""

    async def run() -> None:
        database = await _database(tmp_path)

        def insert(connection: duckdb.DuckDBPyConnection) -> None:
            connection.execute("INSERT INTO t VALUES (1)")

        def broken(connection: duckdb.DuckDBPyConnection) -> None:
            connection.execute("INSERT INTO t VALUES (1)")
            connection.execute("INSERT INTO t VALUES ('x')")

        def odd(_: Any) -> None:
            raise KeyError("odd")

        jobs = [insert, broken, insert, odd, insert]
        outcomes = await asyncio.gather(*(database.write(job) for job in jobs), return_exceptions=True)
        assert [type(one) for one in outcomes] == [
            type(None), duckdb.ConversionException, type(None), KeyError, type(None)
        ]  # fmt: skip
        assert await database.read(_count) == 3
        await database.close()
        assert _count(duckdb.connect(str(tmp_path / "x.duckdb"))) == 3

    asyncio.run(run())


def test_reopened_after_a_fatal_error(tmp_path: Path) -> None:
    """A fatal error closes the file; it is opened anew by itself, with all that was committed."""

    async def run() -> None:
        database = await _database(tmp_path)
        await database.write(lambda connection: connection.execute("INSERT INTO t VALUES (1)"))

        def fatal(connection: duckdb.DuckDBPyConnection) -> None:
            connection.execute("INSERT INTO t VALUES (2)")
            raise duckdb.FatalException("the disk is full")

        with pytest.raises(Unavailable, match=r"x\.duckdb"):
            await database.write(fatal)
        with pytest.raises(Unavailable):
            await database.read(_count)
        async with asyncio.timeout(10):
            while True:
                try:
                    await database.write(lambda connection: connection.execute("INSERT INTO t VALUES (3)"))
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
        rows = await database.read(lambda cursor: cursor.execute("SELECT a FROM t ORDER BY a").fetchall())
        assert rows == [(1,), (3,)]
        await database.close()

    asyncio.run(run())


def test_files_are_out_of_reach(tmp_path: Path) -> None:
    """No statement on the colony's databases can read or write a file, nor change that."""

    async def run() -> None:
        database = await _database(tmp_path)
        for statement in (
            "SELECT * FROM read_text('/etc/hostname')",
            "COPY t TO '/tmp/t.csv'",
            "SET enable_external_access = true",
        ):
            with pytest.raises(duckdb.Error):
                await database.read(lambda cursor, statement=statement: cursor.execute(statement))  # type: ignore[misc]
        await database.close()

    asyncio.run(run())


INSTANCE = Instance(
    pid=7,
    start_time_ns=8,
    executable="/bin/x",
    build_id="ab",
    image_id="id",
    function_name="f",
    status=InstanceStatus.EXITED,
    reason="It ended.",
    method="ret_sites",
    sites=(Site(offset=FileOffset(16), kind=SiteKind.ENTRY, reason="push"),),
    exit_status=-9,
)
COLLECTOR = Collector(
    collector_id="c1",
    agent_id="a",
    status=Status.FAILED,
    reason="Gone.",
    reason_code=ReasonCode.AGENT_GONE,
    ledger=Ledger(
        entered=5,
        returned=4,
        open=1,
        emitted=4,
        stored=4,
        unknown_intervals=(UnknownInterval(from_ns=1, to_ns=2, cause="x"),),
    ),
    instances=(INSTANCE,),
)
SESSION = Session(
    session_id="s1",
    service_name="svc",
    function_name="f",
    agent_id="a",
    started_at_ns=1_700_000_000_123_456_000,
    expires_at_ns=1_700_000_060_123_456_000,
    status=Status.ACTIVE,
    requested_by="me",
    collectors=(COLLECTOR,),
)


def test_sessions_are_read_as_they_were_written(tmp_path: Path) -> None:
    """A session with its collectors, ledgers and instances comes back whole, as a list item and as one to resume."""

    async def run() -> None:
        database = Database(tmp_path / "control.duckdb", CONTROL)
        await database.open()

        def write(connection: duckdb.DuckDBPyConnection) -> None:
            control.insert_session(connection, SESSION, b"request")
            before = replace(COLLECTOR, status=Status.ACTIVE)
            put_collectors(connection, [CollectorRow(session_id="s1", boot_id="boot-before", collector=before)])
            put_collectors(connection, [CollectorRow(session_id="s1", boot_id="boot", collector=COLLECTOR)])
            put_instances(connection, {"c1": [INSTANCE], "gone": []})
            control.update_session(connection, SESSION)

        await database.write(write)
        assert await database.read(lambda cursor: control.find_sessions(cursor, limit=10)) == [SESSION]
        assert await database.read(control.unended) == [
            control.Kept(session=SESSION, request=b"request", boot_ids={"c1": "boot"})
        ]
        seed = await database.read(
            lambda cursor: cursor.execute(
                "SELECT session_id, collector_id, service_name, function_name, agent_id, started_at::VARCHAR, status, "
                "requested_by FROM debug_sessions"
            ).fetchall()
        )
        assert seed == [("s1", "c1", "svc", "f", "a", "2023-11-14 22:13:20.123456+00", "active", "me")]
        await database.write(lambda connection: control.delete_sessions(connection, ["s1"]))
        for name in ("debug_sessions", "debug_collectors", "debug_instances"):
            left = await database.read(lambda cursor, name=name: cursor.execute(f"FROM {name}").fetchall())  # type: ignore[misc]
            assert left == []
        await database.close()

    asyncio.run(run())


def test_agents_and_services_are_read_as_they_were_written(tmp_path: Path) -> None:
    """The registry comes back whole; what an agent sees replaces what it saw."""

    async def run() -> None:
        database = Database(tmp_path / "control.duckdb", CONTROL)
        await database.open()
        agent = Agent(
            agent_id="a", address="127.0.0.1:1", version="1", hostname="h", boot_id="b", kernel="k",
            methods=("uprobe_multi",), last_seen_at_ns=1_700_000_000_000_000_000, online=False,
        )  # fmt: skip
        service = Service(
            name="s", agent_id="a", instances=2, rule="argv0", sdk_enabled=True, sdk_addr="127.0.0.1:9", sdk_version="3"
        )
        for seen in ([], [service]):

            def write(connection: duckdb.DuckDBPyConnection, seen: list[Service] = seen) -> None:
                directory.put_agents(connection, [agent])
                directory.put_services(connection, {"a": seen})

            await database.write(write)
        assert await database.read(directory.load) == ([agent], [service])
        await database.close()

    asyncio.run(run())
