"""The audit log as a table: rows follow the copy, in its order, in batches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa

from coral.colony.store.database import Database
from coral.trust.chain import FIELDS, Record, time_text
from coral.trust.evidence import Head

_PAGE = 5_000
_ROWS = pa.schema([("sequence", pa.int64()), *((name, pa.string()) for name in FIELDS[1:])])
_TEXTS = ", ".join(f'"{name}"' for name in FIELDS[2:])
COLUMNS = f'sequence, epoch_us("time"), {_TEXTS}'
"""As ``row_record`` takes them."""


class AuditTable:
    """Takes records from the thread that writes the copy, and puts them into ``audit_log``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[Record] = deque()
        self._guard = threading.Lock()
        self.committed = 0

    @property
    def waiting(self) -> int:
        """How many records are not known to be in the table."""
        return len(self._waiting)

    def add(self, records: Sequence[Record]) -> None:
        """Takes records that are in the copy; for any thread."""
        with self._guard:
            self._waiting.extend(records)

    def put(self, connection: duckdb.DuckDBPyConnection) -> int:
        """Inserts what waits; a job for ``Database.write``.

        Returns:
            The last sequence that is in the table once the transaction is committed.
        """
        with self._guard:
            waiting = list(self._waiting)
        # A job may run twice, and two flushes may wait at once.
        row = connection.execute("SELECT max(sequence) FROM audit_log WHERE sequence > ?", [self.committed]).fetchone()
        reached = (row and row[0]) or self.committed
        new = [record for record in waiting if record.sequence > reached]
        if not new:
            return int(reached)
        insert(connection, new)
        return new[-1].sequence

    async def flush(self) -> None:
        """Puts what waits into the table.

        Raises:
            Unavailable: The database cannot be written now.
        """
        if self._waiting:
            self.confirm(await self._database.write(self.put))

    def confirm(self, upto: int) -> None:
        """Forgets what is in the table for good."""
        with self._guard:
            self.committed = max(self.committed, upto)
            while self._waiting and self._waiting[0].sequence <= self.committed:
                self._waiting.popleft()


def insert(connection: duckdb.DuckDBPyConnection, records: Sequence[Record]) -> None:
    """Adds rows."""
    rows = [{name: getattr(record, name) for name in FIELDS} for record in records]
    connection.register("new_records", pa.Table.from_pylist(rows, schema=_ROWS))
    connection.execute(
        f'INSERT INTO audit_log BY NAME SELECT sequence, "time"::TIMESTAMPTZ AS "time", {_TEXTS} FROM new_records'
    )
    connection.unregister("new_records")


def row_record(row: Sequence[object]) -> Record:
    """The record of a row of ``COLUMNS``; of one that nobody here wrote, some record that is not right."""
    sequence, time_us, *texts = row
    assert isinstance(sequence, int), "the column is BIGINT NOT NULL"
    try:
        time = time_text(int(str(time_us)) * 1000)
    except (ValueError, OverflowError):
        time = str(time_us)
    return Record(sequence=sequence, time=time, **dict(zip(FIELDS[2:], map(str, texts), strict=True)))


def lines(cursor: duckdb.DuckDBPyConnection, *, begins: int, upto: int) -> Iterator[bytes]:
    """The rows as lines of the copy, by their numbers; a page at a time, as the table may be large.

    Args:
        cursor: To the database.
        begins: The first record that was ever chained.
        upto: The last one that counts.
    """
    after = (begins, -1)
    while True:
        found = cursor.execute(
            f"""
            SELECT rowid, {COLUMNS} FROM audit_log
            WHERE sequence BETWEEN ? AND ? AND (sequence, rowid) > (?, ?) ORDER BY sequence, rowid LIMIT ?
            """,
            [after[0], upto, *after, _PAGE],
        ).fetchall()
        for row in found:
            yield row_record(row[1:]).line()
        if len(found) < _PAGE:
            return
        after = (found[-1][1], found[-1][0])


def last(cursor: duckdb.DuckDBPyConnection) -> Head:
    """The last chained row."""
    row = cursor.execute("SELECT sequence, hash FROM audit_log WHERE hash <> '' ORDER BY sequence DESC LIMIT 1").fetchone()
    return Head(sequence=row[0], hash=row[1]) if row else Head()


def last_unchained(cursor: duckdb.DuckDBPyConnection) -> int:
    """The number of the last row from before there was a chain; 0 if there is none."""
    row = cursor.execute("SELECT coalesce(max(sequence), 0) FROM audit_log WHERE hash = ''").fetchone()
    return int(row[0]) if row else 0


def hash_of(cursor: duckdb.DuckDBPyConnection, sequence: int) -> str:
    """The hash of one row; empty if there is none."""
    row = cursor.execute("SELECT hash FROM audit_log WHERE sequence = ?", [sequence]).fetchone()
    return str(row[0]) if row else ""


def first_since(cursor: duckdb.DuckDBPyConnection, time: str) -> int:
    """The first chained row from a time on, as records write it; 0 if there is none."""
    row = cursor.execute(
        "SELECT coalesce(min(sequence), 0) FROM audit_log WHERE hash <> '' AND \"time\" >= ?::TIMESTAMPTZ", [time]
    ).fetchone()
    return int(row[0]) if row else 0


def delete_before(connection: duckdb.DuckDBPyConnection, sequence: int) -> None:
    """Removes rows that retention has ended; a job for ``Database.write``."""
    connection.execute("DELETE FROM audit_log WHERE sequence < ?", [sequence])
