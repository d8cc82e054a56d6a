"""Reads a database in a process of its own: DuckDB 1.5 does not survive every damaged block that it reads.

A file that was being opened when the process ended is tried here before it is opened again.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import duckdb

_TIMEOUT_S = 120.0


def ends_its_reader(path: Path) -> str:
    """Whether reading a database ends the process that does it.

    Args:
        path: A database that this process does not have open.

    Returns:
        How the reader ended; empty if it came through, whatever it thought of the file, or has not within two minutes.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__, str(path)], capture_output=True, check=False, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return ""
    return f"reading it ends the process with signal {-done.returncode}" if done.returncode < 0 else ""


def read_through(connection: duckdb.DuckDBPyConnection) -> None:
    """Reads what DuckDB would read only when it is asked for, so that damage shows now and not in the middle of the work.

    Of events it reads where they are, not what they are: that would take as long as they are many.

    Raises:
        duckdb.Error: Something cannot be read.
    """
    tables = connection.execute("SELECT table_name FROM duckdb_tables() WHERE NOT temporary AND NOT internal").fetchall()
    for (table,) in tables:
        what = "count(*)" if table.endswith("_events") else "bit_xor(hash(rows))"
        connection.execute(f"SELECT {what} FROM {table} AS rows").fetchall()


if __name__ == "__main__":
    with contextlib.suppress(duckdb.Error):
        read_through(duckdb.connect(sys.argv[1], read_only=True, config={"threads": 1, "memory_limit": "1GB"}))
