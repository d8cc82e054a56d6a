"""``coral db query``: one read-only statement over the tables of both files.

The statement runs on a cursor of the events file, in a read-only transaction; the control tables are put beside it as
temporary ones, those that it names with their rows. A statement that reads control tables alone, of which one is too large
to be copied (the audit log of a year), runs on a cursor of the control file. What a statement may call is an allow list: some
of DuckDB's table functions write files, change settings or read raw memory although they are called in a SELECT, and
``enable_external_access`` does not stop all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from coral.colony.store.database import Database
from coral.events.batch import encode
from coral.model.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument

CONTROL_TABLES = (
    "debug_sessions",
    "debug_collectors",
    "debug_instances",
    "agents",
    "services",
    "audit_log",
)
MAX_ROWS = 100_000
MAX_COPIED_ROWS = 500_000
"""Of one control table: some 300 MB of audit records."""
MAX_BYTES = 12 << 20
MAX_SQL_BYTES = 100_000
TIMEOUT_S = 30.0
_FUNCTIONS = frozenset({
    "range", "generate_series", "unnest", "repeat", "json_each", "json_tree", "summary", "duckdb_columns", "duckdb_tables",
    "duckdb_views", "duckdb_schemas", "duckdb_types", "duckdb_functions", "pragma_table_info", "pragma_show",
    "pragma_version", "pragma_database_size",
})  # fmt: skip
_OTHER = "*"
"""Among the tables of a statement: it reads something that is no table, or not by its name (SUMMARIZE, DESCRIBE, SHOW)."""
_NOT_ALLOWED = frozenset({"sleep_ms", "write_log", "nextval", "getenv"})
_EXPLAIN = re.compile(r"\s*explain\b(\s+analyze\b)?", re.IGNORECASE)
_ONLY = "Only a single SELECT, WITH, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN statement can be run."


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The result of a statement.

    Attributes:
        arrow_ipc: One Arrow IPC stream with its schema.
        truncated: Whether the result had more rows than that.
    """

    arrow_ipc: bytes
    truncated: bool


class Inspector:
    """Runs statements."""

    def __init__(self, control_db: Database, events_db: Database) -> None:
        self._control = control_db
        self._events = events_db

    async def query(self, sql: str, *, timeout_s: float = TIMEOUT_S) -> Answer:
        """Runs one statement.

        Raises:
            InvalidArgument: It is not one that may be run, or DuckDB finds an error in it.
            DeadlineExceeded: It took too long.
            FailedPrecondition: It needs more memory than it may have.
        """
        if len(sql.encode(errors="surrogatepass")) > MAX_SQL_BYTES:
            raise InvalidArgument("The statement is too long.", hint=f"At most {MAX_SQL_BYTES:,} bytes are allowed.")
        try:
            tables = await self._events.read(lambda cursor: allowed_tables(cursor, sql))
            if await self._control.read(lambda cursor: _reads_in_place(cursor, tables)):
                return await self._control.read(lambda cursor: _run(cursor, sql, []), timeout_s=timeout_s)
            beside = await self._control.read(lambda cursor: _control_tables(cursor, tables))
            return await self._events.read(lambda cursor: _run(cursor, sql, beside), timeout_s=timeout_s)
        except duckdb.InterruptException:
            raise DeadlineExceeded(
                f"The statement ran longer than {timeout_s:g} s.", hint="Narrow it, for example by session_id."
            ) from None
        except duckdb.OutOfMemoryException as error:
            raise FailedPrecondition(
                f"The statement needs too much memory: {_first_line(error)}.", hint="Narrow it, for example by session_id."
            ) from None
        except duckdb.Error as error:
            raise InvalidArgument(f"{_first_line(error)}.", hint="`coral db query 'show tables'` lists the tables.") from None


def allowed_tables(cursor: duckdb.DuckDBPyConnection, sql: str) -> set[str]:
    """The names of the tables that a statement reads.

    Raises:
        InvalidArgument: It is not one that may be run.
        duckdb.Error: It cannot be parsed.
    """
    # By the cursor, which may open no file: IMPORT DATABASE is read from its file as soon as it is parsed.
    statements = cursor.extract_statements(sql)
    if len(statements) != 1:
        raise InvalidArgument(f"There are {len(statements)} statements.", hint=_ONLY)
    text = statements[0].query
    if statements[0].type == duckdb.StatementType.EXPLAIN:
        # EXPLAIN ANALYZE runs what it explains.
        text, found = _EXPLAIN.subn("", text, count=1)
        if not found:
            raise InvalidArgument("The EXPLAIN does not stand at the beginning.", hint=_ONLY)
    elif statements[0].type != duckdb.StatementType.SELECT:
        raise InvalidArgument(f"This is a statement of the kind {statements[0].type.name}.", hint=_ONLY)
    row = cursor.execute("SELECT json_serialize_sql(?)", [text]).fetchone()
    tree = json.loads(row[0]) if row else {"error": True}
    if tree["error"]:
        raise InvalidArgument(f"This statement cannot be checked: {tree.get('error_message', 'it has no tree')}", hint=_ONLY)
    tables = set()
    for node in _nodes(tree):
        if node.get("type") == "BASE_TABLE":
            tables.add(str(node["table_name"]).lower())
        if node.get("type") in ("SHOW_REF", "TABLE_FUNCTION"):
            tables.add(_OTHER)
        function = node.get("function")
        if node.get("type") == "TABLE_FUNCTION" and isinstance(function, dict):
            _check_function(str(function["function_name"]), function["function_name"].lower() in _FUNCTIONS)
        elif node.get("class") == "FUNCTION":
            _check_function(str(node["function_name"]), node["function_name"].lower() not in _NOT_ALLOWED)
    return tables


def _reads_in_place(cursor: duckdb.DuckDBPyConnection, tables: set[str]) -> bool:
    """Whether a statement is to read the control file itself: one of its tables is too large to be copied.

    The file also has what nobody may read, such as the hashes of tokens. So each name that stands in the statement has to be
    one of the tables that may be; a name that the statement gives itself (WITH) is none, and is not run there.
    """
    if not tables or not tables <= set(CONTROL_TABLES):
        return False
    return any(_count(cursor, name) > MAX_COPIED_ROWS for name in tables)


def _count(cursor: duckdb.DuckDBPyConnection, name: str) -> int:
    (count,) = cursor.execute(f"SELECT count(*) FROM {name}").fetchone() or (0,)
    return int(count)


def _check_function(name: str, allowed: bool) -> None:
    if not allowed:
        raise InvalidArgument(
            f"The function {name} cannot be used here.", hint="A query reads the colony's tables and nothing else."
        )


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for child in tree.values():
            yield from _nodes(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from _nodes(child)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copy:
    """A control table beside the events.

    Attributes:
        name: Of the table.
        columns: As CREATE TABLE takes them.
        rows: Its rows if the statement reads it; else none: it is there to be listed and described.
    """

    name: str
    columns: str
    rows: pa.Table | None


def _control_tables(cursor: duckdb.DuckDBPyConnection, wanted: set[str]) -> list[_Copy]:
    copies = []
    for name in CONTROL_TABLES:
        columns = cursor.execute(
            """
            SELECT '"' || column_name || '" ' || data_type || CASE WHEN is_nullable THEN '' ELSE ' NOT NULL' END
            FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index
            """,
            [name],
        ).fetchall()
        rows = _rows(cursor, name) if name in wanted else None
        copies.append(_Copy(name=name, columns=", ".join(column[0] for column in columns), rows=rows))
    return copies


def _rows(cursor: duckdb.DuckDBPyConnection, name: str) -> pa.Table:
    """The rows of a control table.

    Raises:
        FailedPrecondition: They are too many to be copied.
    """
    count = _count(cursor, name)
    if count > MAX_COPIED_ROWS:
        raise FailedPrecondition(
            f"{name} has {count:,} rows: too many for a statement that reads other tables too, or names some by WITH.",
            hint=f"Read {name} without them; for the audit log there is `coral audit query` as well.",
        )
    return cursor.execute(f"SELECT * FROM {name}").to_arrow_table()


def _run(cursor: duckdb.DuckDBPyConnection, sql: str, beside: list[_Copy]) -> Answer:
    # Temporary tables belong to the cursor's connection alone, and go with it.
    for copy in beside:
        cursor.execute(f"CREATE TEMP TABLE {copy.name} ({copy.columns})")
        if copy.rows is not None:
            cursor.register("rows_beside", copy.rows)
            cursor.execute(f"INSERT INTO {copy.name} SELECT * FROM rows_beside")
            cursor.unregister("rows_beside")
    cursor.execute("BEGIN TRANSACTION READ ONLY")
    try:
        return _collect(cursor.execute(sql).to_arrow_reader(10_000))
    finally:
        cursor.execute("ROLLBACK")


def _collect(reader: pa.RecordBatchReader) -> Answer:
    batches: list[pa.RecordBatch] = []
    rows, size, truncated = 0, 0, False
    for batch in reader:
        kept = batch.slice(0, MAX_ROWS - rows)
        while size + kept.nbytes > MAX_BYTES and kept.num_rows:
            kept = kept.slice(0, kept.num_rows // 2)
        batches.append(kept)
        rows, size = rows + kept.num_rows, size + kept.nbytes
        if kept.num_rows < batch.num_rows:
            truncated = True
            break
    return Answer(arrow_ipc=encode(pa.Table.from_batches(batches, schema=reader.schema)), truncated=truncated)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
