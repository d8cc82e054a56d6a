"""Events in the events file: written in two tables, read as one, removed in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from coral.colony.progress import Progress
from coral.colony.results import SLOWEST, keep_slowest
from coral.colony.store.database import Database
from coral.colony.store.events import (
    Commit,
    Position,
    commit_events,
    count_events,
    delete_events,
    following,
    load_progress,
    page,
    slowest,
)
from coral.colony.store.schema import EVENTS, migrate
from coral.colony.store.sources import Source, sources_of
from coral.events.batch import SCHEMA, rows

ALL = 1 << 40


def event(collector_id: str, sequence: int, timestamp_ns: int, **fields: Any) -> dict[str, Any]:
    """One event, as ``rows`` gives it."""
    return {
        "timestamp_ns": timestamp_ns, "collector_id": collector_id, "agent_id": "a", "service_name": "svc",
        "function_name": "f", "event_type": "return", "duration_ns": sequence, "pid": 1, "tid": 2, "args": [],
        "return_value": None, "labels": {}, "sequence": sequence, **fields,
    }  # fmt: skip


def table_of(events: list[dict[str, Any]]) -> pa.Table:
    """They as a table of ``SCHEMA``."""
    return pa.Table.from_pylist([{**one, "labels": list(one["labels"].items())} for one in events], schema=SCHEMA)


@pytest.fixture(name="connection")
def _connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        migrate(connection, EVENTS, file="memory")
        yield connection


DETAILED = [
    event("c1", 2, 20, args=[{"name": "n", "type": "int", "value": "7"}]),
    event("c1", 3, 30, return_value={"type": "int", "value": "1", "is_error": False, "error_message": ""}),
    event("c2", 1, 25, labels={"exit": "tail_call", "to": "g"}),
    event("c2", 2, 30, event_type="entry"),
]
PLAIN = [event("c1", 1, 10), event("c1", 4, 31), event("c2", 3, 30)]


def _everything(connection: duckdb.DuckDBPyConnection, **bounds: Any) -> list[dict[str, Any]]:
    asked = {"upto": {"c1": ALL, "c2": ALL}, "start_ns": None, "end_ns": None, "after": None, "limit": 100, **bounds}
    return list(rows(page(connection, session_id="s", **asked)))


def test_events_come_back_as_they_went_in(connection: duckdb.DuckDBPyConnection) -> None:
    """With values and without, of several collectors and kinds: by page, by follower, and as rows of uprobe_events."""
    given = [DETAILED[0], PLAIN[0], *DETAILED[1:], *PLAIN[1:]]
    known = commit_events(connection, Commit(events={"s": table_of(given)}, new=[], moved=[]))
    again = commit_events(connection, Commit(events={"s": table_of([event("c1", 5, 40)])}, new=[], moved=[]), known=known)
    commit_events(connection, Commit(events={"other": table_of([event("c9", 1, 15)])}, new=[], moved=[]), known=known)
    assert {(source.collector_id, source.event_type) for source in known} == {
        ("c1", "return"), ("c2", "return"), ("c2", "entry")
    }  # fmt: skip
    assert again == {}
    expected = sorted(
        [*given, event("c1", 5, 40)], key=lambda one: (one["timestamp_ns"], one["collector_id"], one["sequence"])
    )
    assert _everything(connection) == expected
    mine = sorted((one for one in expected if one["collector_id"] == "c1"), key=lambda one: one["sequence"])
    assert list(rows(following(connection, collector_id="c1", after=1, limit=3))) == mine[1:4]
    seen = connection.execute("SELECT * EXCLUDE session_id FROM uprobe_events WHERE session_id = 's'").to_arrow_table()
    assert (
        sorted(rows(seen.cast(SCHEMA)), key=lambda one: (one["timestamp_ns"], one["collector_id"], one["sequence"]))
        == expected
    )
    assert connection.execute("SELECT count(*) FROM plain_events").fetchone() == (6,)


def test_pages_have_bounds_and_a_snapshot(connection: duckdb.DuckDBPyConnection) -> None:
    """From a time on, before a time, after a place, and only what had come when the first page was read."""
    given = sorted([*DETAILED, *PLAIN], key=lambda one: (one["timestamp_ns"], one["collector_id"], one["sequence"]))
    commit_events(connection, Commit(events={"s": table_of(given)}, new=[], moved=[]))
    assert _everything(connection, start_ns=20, end_ns=30) == [one for one in given if 20 <= one["timestamp_ns"] < 30]
    assert _everything(connection, upto={"c1": 3}) == [one for one in given if one["collector_id"] == "c1"][:3]
    for index, one in enumerate(given):
        after = Position(timestamp_ns=one["timestamp_ns"], collector_id=one["collector_id"], sequence=one["sequence"])
        assert _everything(connection, after=after, limit=2) == given[index + 1 : index + 3]
    assert _everything(connection, upto={}) == []


def test_progress_and_results_are_what_was_committed(connection: duckdb.DuckDBPyConnection) -> None:
    """New rows, moved rows, and the slowest events, which replace those before."""
    first = Progress(collector_id="c1", session_id="s", last_sequence=1, stored=1)
    later = Progress(collector_id="c1", session_id="s", last_sequence=4, stored=3, queue_dropped=1)
    commit_events(connection, Commit(events={"s": table_of(PLAIN[:1])}, new=[first], moved=[], slowest={"s": PLAIN[:1]}))
    commit_events(connection, Commit(events={}, new=[], moved=[later], slowest={"s": DETAILED}))
    found = load_progress(connection, ["s"])["c1"]
    assert (found.last_sequence, found.stored, found.queue_dropped) == (4, 3, 1)
    assert (slowest(connection, "s"), slowest(connection, "none")) == (DETAILED, [])
    assert count_events(connection, ["s", "none"]) == {"s": 3}


def test_removing_in_pieces(connection: duckdb.DuckDBPyConnection) -> None:
    """Each call takes some rows of one session, from both tables; the last one its sources; the others' stay."""
    own, other = ([event(name, number, number) for number in range(1, 101)] for name in ("c1", "c2"))
    for start in range(0, 100, 10):
        tables = {"s": table_of(own[start : start + 10]), "t": table_of(other[start : start + 10])}
        commit_events(connection, Commit(events=tables, new=[], moved=[]))
    commit_events(connection, Commit(events={"s": table_of([event("c1", 101, 101, labels={"a": "b"})])}, new=[], moved=[]))
    removed = []
    while (deleted := delete_events(connection, "s", limit=30)) is not None:
        removed.append(deleted)
    assert removed == [20, 20, 20, 20, 20, 1]
    assert connection.execute("SELECT session_id, count(*) FROM uprobe_events GROUP BY ALL").fetchall() == [("t", 100)]
    assert connection.execute("SELECT DISTINCT session_id FROM event_sources").fetchall() == [("t",)]


def test_names_without_end_are_refused() -> None:
    """A thousand different names are more than any collector has."""
    with pytest.raises(ValueError, match="different values of function_name"):
        sources_of(table_of([event("c1", number, 1, function_name=f"f{number}") for number in range(1, 1002)]), "s")
    some, places = sources_of(
        table_of([event("c1", n, 1, function_name=f"f{n % 3}", agent_id=f"a{n % 2}") for n in range(6)]), "s"
    )
    assert [(some[place].function_name, some[place].agent_id) for place in places] == [
        (f"f{n % 3}", f"a{n % 2}") for n in range(6)
    ]
    assert isinstance(some[0], Source)
    assert places.dtype == np.uint32


def test_slowest_are_kept_batch_by_batch() -> None:
    """As if all had been sorted at once; entry events, which have no duration, are not among them."""
    random = np.random.default_rng(5)
    events = [
        event("c1", number, number, duration_ns=int(duration), event_type="entry" if number % 7 == 0 else "return")
        for number, duration in enumerate(random.permutation(500) + 1)
    ]
    kept: list[dict[str, Any]] = []
    for start in range(0, 500, 60):
        kept = keep_slowest(kept, table_of(events[start : start + 60]))
    completed = [one for one in events if one["event_type"] == "return"]
    assert kept == sorted(completed, key=lambda one: -one["duration_ns"])[:SLOWEST]
    assert keep_slowest(kept, table_of([event("c1", 600, 600, duration_ns=1)])) is kept


def test_older_file_is_brought_up_to_date() -> None:
    """Events and results of a file from before are the same after it."""
    with duckdb.connect(config={"threads": 1}) as connection:
        migrate(connection, EVENTS[:1], file="memory")
        connection.register("given", table_of([*PLAIN, *DETAILED]))
        connection.execute("INSERT INTO uprobe_events SELECT *, 's' FROM given")
        connection.unregister("given")
        before = connection.execute("SELECT * FROM uprobe_events").to_arrow_table()
        migrate(connection, EVENTS, file="memory")
        after = connection.execute("SELECT * FROM uprobe_events").to_arrow_table()
        order = [("timestamp_ns", "ascending"), ("collector_id", "ascending"), ("sequence", "ascending")]
        assert after.sort_by(order).to_pylist() == before.sort_by(order).to_pylist()
        completed = [one for one in [*PLAIN, *DETAILED] if one["event_type"] == "return"]
        assert slowest(connection, "s") == sorted(
            completed, key=lambda one: (-one["duration_ns"], one["timestamp_ns"], one["collector_id"], one["sequence"])
        )


@contextmanager
def _open(path: Path) -> Iterator[Callable[[Callable[[Database], Awaitable[Any]]], Any]]:
    database = Database(path, EVENTS)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(database.open())
    try:
        yield lambda use: loop.run_until_complete(use(database))
    finally:
        loop.run_until_complete(database.close())
        loop.close()


def test_copying_anew_gives_room_back_and_yields(tmp_path: Path) -> None:
    """Pages go on where they were after others' events went and the file was copied; a write that waits ends the copying."""
    own, other = ([event(name, number, number) for number in range(1, 3_001)] for name in ("c1", "c2"))
    with _open(tmp_path / "events.duckdb") as do:
        commit = Commit(events={"s": table_of(own), "t": pa.concat_tables([table_of(other)] * 200)}, new=[], moved=[])
        do(lambda database: database.write(lambda c: commit_events(c, commit)))

        def read(after: Position | None) -> Callable[[Database], Awaitable[list[dict[str, Any]]]]:
            return lambda database: database.read(
                lambda c: list(
                    rows(page(c, session_id="s", upto={"c1": ALL}, start_ns=None, end_ns=None, after=after, limit=50))
                )
            )

        place = Position(timestamp_ns=1500, collector_id="c1", sequence=1500)
        before = do(read(place))

        async def remove(database: Database) -> int:
            while await database.write(lambda c: delete_events(c, "t")) is not None:
                pass
            await database.checkpoint()
            return (await database.size()).reusable_bytes

        assert do(remove) > 0
        assert do(read(place)) == before

        async def interrupted(database: Database) -> tuple[int, int]:
            copying = asyncio.ensure_future(database.rewrite(yielding=True))
            write = asyncio.ensure_future(database.write(lambda c: c.execute("SELECT 1").fetchall()[0][0]))
            return await copying, await write

        assert do(interrupted) == (0, 1)
        assert do(lambda database: database.rewrite(yielding=True)) > 0
        assert do(lambda database: database.size()).reusable_bytes == 0
        assert do(read(place)) == before
