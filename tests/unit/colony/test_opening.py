"""Files that cannot be opened: which are set aside and begun anew, and which are left alone."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from coral.colony.store.database import Database
from coral.colony.store.opening import is_damage, open_database, set_aside_files
from coral.colony.store.schema import Migration
from coral.model.errors import FailedPrecondition, Unavailable

ONE = Migration(number=1, name="one", statements=("CREATE TABLE t (a INTEGER)",))
TWO = Migration(number=2, name="two", statements=("CREATE TABLE u (a INTEGER)",))

# Some rows in the file itself, and some in its write-ahead log, as a process leaves them that is killed.
_MAKE = """
import os, sys, duckdb
connection = duckdb.connect(sys.argv[1])
connection.execute("CREATE TABLE schema_migrations (number INTEGER, name VARCHAR, applied_at TIMESTAMPTZ)")
connection.execute("INSERT INTO schema_migrations VALUES (1, 'one', now())")
connection.execute("CREATE TABLE t (a INTEGER)")
connection.execute("INSERT INTO t SELECT (hash(i) % 1000000)::INTEGER FROM range(100000) r(i)")
connection.execute("CHECKPOINT")
connection.execute("INSERT INTO t FROM range(1000)")
os._exit(0)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """The content of a file whose process was killed, and of its log."""
    path = tmp_path_factory.mktemp("killed") / "x.duckdb"
    subprocess.run([sys.executable, "-c", _MAKE, path], check=True, timeout=60)
    return path.read_bytes(), path.with_name("x.duckdb.wal").read_bytes()


def _flipped(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes(byte ^ 0xFF for byte in data[offset : offset + 16]) + data[offset + 16 :]


def _count(connection: duckdb.DuckDBPyConnection) -> int:
    (found,) = connection.execute("SELECT count(*) FROM t").fetchone() or (0,)
    return int(found)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "no bytes": lambda data: b"",
    "one byte": lambda data: data[:1],
    "half a header": lambda data: data[:5000],
    "headers alone": lambda data: data[:12288],
    "text": lambda data: b"hello\n" * 1000,
    "zeros": lambda data: bytes(len(data)),
    "header": lambda data: _flipped(data, 20),
    "second header": lambda data: _flipped(_flipped(data, 4116), 8212),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_file_is_set_aside(tmp_path: Path, killed: tuple[bytes, bytes], damage: str) -> None:
    """It keeps its content under another name, as its log does, and an empty file takes its place."""
    path = tmp_path / "x.duckdb"
    broken, log = DAMAGE[damage](killed[0]), killed[1]
    path.write_bytes(broken)
    path.with_name("x.duckdb.wal").write_bytes(log)
    connection, aside = open_database(path, [ONE])
    assert _count(connection) == 0
    connection.execute("INSERT INTO t VALUES (1)")
    connection.close()
    assert [one.file for one in aside] == ["x.duckdb", "x.duckdb.wal"]
    assert all(one.reason and one.at_ns for one in aside)
    assert [(tmp_path / one.kept_as).read_bytes() for one in aside] == [broken, log]
    assert {file.name for file in set_aside_files(tmp_path)} == {one.kept_as for one in aside}
    again, nothing = open_database(path, [ONE])
    assert (_count(again), nothing) == (1, [])
    again.close()


_OPEN_IT = """
import sys
from pathlib import Path
from coral.colony.store.opening import open_database
from coral.colony.store.schema import Migration
one = Migration(number=1, name="one", statements=("CREATE TABLE t (a INTEGER)",))
for folder in sys.argv[1:]:
    connection, aside = open_database(Path(folder) / "x.duckdb", [one])
    connection.execute("INSERT INTO t VALUES (1)")
    connection.close()
"""


def test_damaged_blocks_keep_nobody_from_starting(tmp_path: Path, killed: tuple[bytes, bytes]) -> None:
    """Where DuckDB ends its process over a damaged block, the next start tries the file apart, and sets it aside."""
    folders = []
    for offset in (12288, 12288 + 5000, 12288 + 20_000, len(killed[0]) // 2, len(killed[0]) - 40_000):
        folders.append(tmp_path / str(offset))
        folders[-1].mkdir()
        (folders[-1] / "x.duckdb").write_bytes(_flipped(killed[0], offset))
    (folders[0] / ".x.duckdb.opening").touch()  # as a start that was killed leaves it
    for _ in range(len(folders) + 1):
        done = subprocess.run([sys.executable, "-c", _OPEN_IT, *folders], capture_output=True, check=False, timeout=60)
        if not done.returncode:
            break
        assert done.returncode == -signal.SIGSEGV, done.stderr.decode()
    assert not done.returncode
    for folder in folders:
        aside = set_aside_files(folder)
        assert all(one.read_bytes() in (_flipped(killed[0], int(folder.name)),) for one in aside)
        assert not (folder / ".x.duckdb.opening").exists()
    assert sum(bool(set_aside_files(folder)) for folder in folders) >= 2


@pytest.mark.parametrize("offset", [30, 1000, -20])
def test_damaged_log_is_set_aside_alone(tmp_path: Path, killed: tuple[bytes, bytes], offset: int) -> None:
    """What the file had at its last checkpoint stays."""
    path, log = tmp_path / "x.duckdb", _flipped(killed[1], offset % len(killed[1]))
    path.write_bytes(killed[0])
    path.with_name("x.duckdb.wal").write_bytes(log)
    connection, aside = open_database(path, [ONE])
    assert _count(connection) == 100_000
    assert [one.file for one in aside] == ["x.duckdb.wal"]
    assert (tmp_path / aside[0].kept_as).read_bytes() == log
    connection.close()


def test_whole_file_is_left_as_it_is(tmp_path: Path, killed: tuple[bytes, bytes]) -> None:
    """What was committed before a process was killed is there; a log that ends early is that of a commit that did not end."""
    path = tmp_path / "x.duckdb"
    for log, count in ((killed[1], 101_000), (killed[1][:-100], 100_000)):
        path.write_bytes(killed[0])
        path.with_name("x.duckdb.wal").write_bytes(log)
        connection, aside = open_database(path, [ONE])
        assert (_count(connection), aside) == (count, [])
        connection.close()


def test_newer_and_locked_files_are_not_touched(tmp_path: Path) -> None:
    """They are refused, with what to do about it."""
    path = tmp_path / "x.duckdb"
    open_database(path, [ONE, TWO])[0].close()
    with pytest.raises(FailedPrecondition, match="has schema 2"):
        open_database(path, [ONE])
    hold = "import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); print('open', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold, path], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"open\n"
        with pytest.raises(FailedPrecondition, match="in use by another process"):
            open_database(path, [ONE, TWO])
        other.kill()
    assert set_aside_files(tmp_path) == []


@pytest.mark.parametrize(
    "message",
    [
        "Could not set lock on file", "No space left on device", "Cannot open file: Permission denied",
        'Failure while replaying WAL file "x": No space left on device',
        "Trying to read a database file with version number 99, but we can only read versions between 1 and 67",
        "Could not read from file: Input/output error",
    ],
)  # fmt: skip
def test_what_is_no_damage(message: str) -> None:
    """Errors that do not speak of the content leave the file where it is."""
    assert not is_damage(duckdb.IOException(message))


def test_damage_that_shows_while_a_file_is_used(tmp_path: Path) -> None:
    """A replaceable file is begun anew when a write meets damage, and counts that; another one stays, and stays closed."""

    async def run(*, replaceable: bool) -> tuple[int, int]:
        database = Database(tmp_path / f"{replaceable}.duckdb", [ONE], replaceable=replaceable)
        await database.open()
        await database.write(lambda connection: connection.execute("INSERT INTO t VALUES (1)"))

        def meets_damage(_: duckdb.DuckDBPyConnection) -> None:
            raise duckdb.IOException("Corrupt database file: computed checksum 1 does not match stored checksum 2 in block")

        with pytest.raises(Unavailable):
            await database.write(meets_damage)
        async with asyncio.timeout(10):
            while True:
                try:
                    await database.write(lambda connection: connection.execute("INSERT INTO t VALUES (2)"))
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
        rows = await database.read(_count)
        await database.close()
        return rows, database.generation

    assert asyncio.run(run(replaceable=True)) == (1, 1)
    assert asyncio.run(run(replaceable=False)) == (2, 0)
    assert len(set_aside_files(tmp_path)) in (1, 2)  # with its log, if that was not in the file yet
