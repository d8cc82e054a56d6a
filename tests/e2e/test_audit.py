"""Every operation leaves a row in audit_log: who as far as known, what, when, on which service and function, how it ended."""

from __future__ import annotations

import getpass
import time

import pytest
from support import build, rpc
from support.stack import Stack
from support.target import running

pytestmark = pytest.mark.kernel


def test_a_session_leaves_its_trace(stack: Stack) -> None:
    """Attach, read and detach of one session are rows with a principal, a time, the names and the outcome."""
    before_ns = time.time_ns()
    with running(build.c_program("loop"), "--calls", 5) as target:
        session_id = stack.cli.attach(target.service, "work")["session_id"]
        stack.cli.events(session_id)
        stack.cli.stop(session_id)
    rows = stack.cli.query(
        "SELECT sequence, epoch_ns(time) AS time_ns, principal, address, action, service_name, function_name, session_id, "
        f"decision, outcome FROM audit_log WHERE session_id = '{session_id}' ORDER BY sequence"
    )
    actions = [row["action"] for row in rows]
    assert "AttachUprobe" in actions[0]
    assert rows[0]["outcome"] == "started"
    rows = [row for row in rows if row["outcome"] != "started"]
    assert sorted(actions) == sorted([row["action"] for row in rows] * 2)
    assert any("DetachUprobe" in action for action in actions)
    assert any("QueryUprobeEvents" in action for action in actions)
    for row in rows:
        assert getpass.getuser() in row["principal"], row
        assert "anonymous" not in row["principal"]
        assert row["address"]
        assert (row["decision"], row["outcome"]) == ("allow", "ok")
        assert before_ns <= row["time_ns"] <= time.time_ns()
    assert (rows[0]["service_name"], rows[0]["function_name"]) == (target.service, "work")
    assert [row["sequence"] for row in rows] == sorted({row["sequence"] for row in rows})


def test_tables_of_the_seed(stack: Stack) -> None:
    """debug_sessions has the seed's columns, under their names and types."""
    rows = stack.cli.query(
        "SELECT column_name, data_type, is_nullable FROM information_schema.columns WHERE table_name = 'debug_sessions'"
    )
    columns = {row["column_name"]: (row["data_type"], row["is_nullable"]) for row in rows}
    seed = {
        "session_id": ("VARCHAR", "NO"),
        "collector_id": ("VARCHAR", "YES"),
        "service_name": ("VARCHAR", "NO"),
        "function_name": ("VARCHAR", "NO"),
        "agent_id": ("VARCHAR", "NO"),
        "started_at": ("TIMESTAMP WITH TIME ZONE", "NO"),
        "expires_at": ("TIMESTAMP WITH TIME ZONE", "NO"),
        "status": ("VARCHAR", "NO"),
        "requested_by": ("VARCHAR", "YES"),
    }
    assert {name: columns.get(name) for name in seed} == seed


def test_every_table_can_be_read(stack: Stack) -> None:
    """All tables of the design answer db query, those of both files in one statement."""
    tables = (
        "debug_sessions", "debug_collectors", "debug_instances", "audit_log", "services", "agents", "schema_migrations",
        "uprobe_events",
    )  # fmt: skip
    rows = stack.cli.query(" UNION ALL ".join(f"SELECT '{table}' AS name, count(*) AS rows FROM {table}" for table in tables))
    assert sorted(row["name"] for row in rows) == sorted(tables)
    assert next(row["rows"] for row in rows if row["name"] == "audit_log") > 0


def test_a_client_without_a_name_is_known_by_its_address(stack: Stack) -> None:
    """Who calls over gRPC without saying who they are is the address they call from, and never anonymous."""
    with running(build.c_program("loop")) as target:
        session_id = rpc.attach(stack.colony, target.service, "work").session_id
        document = stack.cli.stop(session_id)
    (row,) = stack.cli.query(
        f"SELECT DISTINCT principal, address FROM audit_log WHERE session_id = '{session_id}' AND action = 'AttachUprobe'"
    )
    assert row["principal"].startswith("127.0.0.1:")
    assert row["address"] == document["requested_by"] == row["principal"]


def test_nobody_else_can_read_what_the_daemons_write(stack: Stack) -> None:
    """Every file of colony and agent has mode 0600, every folder 0700."""
    modes = {path: path.stat().st_mode & 0o777 for path in stack.state_dir.rglob("*") if not path.is_socket()}
    assert {path.name for path in modes} >= {"control.duckdb", "audit.jsonl", "audit.key", "agent.log"}
    assert {path: mode for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}
