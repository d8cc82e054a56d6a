"""Every document the command line prints has exactly the keys that were promised, of the promised kinds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from support import build
from support.observe import observe
from support.stack import Stack
from support.target import Target, running

pytestmark = pytest.mark.kernel

SESSION = [
    "session_id", "service_name", "function_name", "status", "reason_code", "reason", "requested_by", "started_at",
    "expires_at", "ended_at", "events_removed_at", "statistics", "ledger", "slowest", "collectors",
]  # fmt: skip
LEDGER = [
    "entered", "returned", "unreturned", "open", "no_return", "too_deep", "emitted", "filtered", "sampled_out",
    "rate_limited", "ring_lost", "stored", "queue_dropped", "in_transit", "orphan_returns", "unknown_intervals", "balanced",
    "unseen",
]  # fmt: skip
INSTANCE = [
    "pid", "start_time_ns", "executable", "build_id", "image_id", "function_name", "status", "reason", "method", "sites",
    "exit_status",
]  # fmt: skip
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def keys(document: dict[str, Any]) -> list[str]:
    """Its keys, in an order that compares."""
    return sorted(document)


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    """A program that is there for the whole module."""
    with running(build.c_program("loop"), "--calls", 300) as process:
        yield process


@pytest.fixture(scope="module")
def document(stack: Stack) -> Iterator[dict[str, Any]]:
    """The document of a session that has ended."""
    with running(build.c_program("loop"), "--calls", 300) as process:
        yield observe(stack, process, "work", events=False).document


def test_session_document(document: dict[str, Any]) -> None:
    """All keys of a session document and of what is in it, and nothing else."""
    assert keys(document) == sorted(SESSION)
    assert keys(document["statistics"]) == sorted(["calls", "errors", "calls_per_second", "duration_ns"])
    assert keys(document["statistics"]["duration_ns"]) == sorted(["min", "p50", "p95", "p99", "max", "mean", "sum"])
    assert keys(document["ledger"]) == sorted(LEDGER)
    (collector,) = document["collectors"]
    assert keys(collector) == sorted(["collector_id", "agent_id", "status", "reason", "ledger", "instances"])
    assert keys(collector["ledger"]) == sorted(LEDGER)
    (instance,) = collector["instances"]
    assert keys(instance) == sorted(INSTANCE)
    assert [keys(site) for site in instance["sites"]] == [sorted(["offset", "kind", "reason"])] * len(instance["sites"])


def test_values_of_a_session_document(document: dict[str, Any]) -> None:
    """Counters are numbers, times RFC 3339 in UTC, and the instance says what was probed and how."""
    assert document["requested_by"] not in ("", "anonymous")
    assert (document["function_name"], document["status"], document["reason_code"]) == ("work", "detached", "user")
    assert all(TIME.fullmatch(document[name]) for name in ("started_at", "expires_at", "ended_at"))
    counters = {name: value for name, value in document["ledger"].items() if name not in ("unknown_intervals", "balanced")}
    assert {type(value) for value in counters.values()} == {int}
    assert document["ledger"]["balanced"] is True
    (instance,) = document["collectors"][0]["instances"]
    assert instance["executable"].endswith("/loop")
    assert instance["image_id"] != ""
    assert instance["start_time_ns"] > 0
    assert (instance["function_name"], instance["method"], instance["exit_status"]) == ("work", "ret_sites", None)
    assert [site["kind"] for site in instance["sites"]] == ["entry", "return"]
    assert all(site["offset"] > 0 and site["reason"] for site in instance["sites"])


def test_session_list(stack: Stack, document: dict[str, Any]) -> None:
    """The list holds the same documents as get, can be narrowed to a service or a status, and comes as lines too."""
    listing = ("debug", "session", "list", "--service", document["service_name"])
    assert stack.cli.ok(*listing, "-o", "json").json() == {"items": [document], "next_page_token": None}
    assert stack.cli.ok(*listing, "-o", "jsonl").jsonl() == [document]
    assert stack.cli.ok(*listing, "--status", "detached", "-o", "jsonl").jsonl() == [document]
    assert stack.cli.ok(*listing, "--status", "active", "-o", "jsonl").jsonl() == []


def test_service_list(stack: Stack, target: Target) -> None:
    """A program that has just started is a service, with the rule that named it and the agent that sees it."""
    listed = stack.cli.ok("service", "list", "-o", "json").json()
    assert keys(listed) == ["items", "next_page_token"]
    (mine,) = [item for item in listed["items"] if item["name"] == target.service]
    assert mine == {
        "name": target.service,
        "rule": "CORAL_SERVICE",
        "instances": 1,
        "agents": ["agent-1"],
        "sdk": {"enabled": False, "addr": "", "version": ""},
    }
    assert not [item for item in listed["items"] if "coral" in item["name"]]


def test_agent_list(stack: Stack) -> None:
    """The agent of coral dev is online, and says what it can do."""
    (agent,) = stack.cli.ok("agent", "list", "-o", "json").json()["items"]
    named = ("agent_id", "address", "status", "version", "last_seen_at", "kernel", "methods", "lockdown")
    assert keys(agent) == sorted(named)
    assert (agent["agent_id"], agent["address"], agent["status"]) == ("agent-1", stack.agent, "online")
    assert TIME.fullmatch(agent["last_seen_at"])
    assert "uprobe_multi" in agent["methods"]


def test_error_document(stack: Stack) -> None:
    """With -o json an error is one document on stderr, and nothing is on stdout."""
    outcome = stack.cli.run("debug", "session", "get", "no-such-session", "-o", "json")
    assert (outcome.exit_code, outcome.stdout) == (3, "")
    error = outcome.error()
    assert keys(error) == sorted(["code", "message", "hint", "details"])
    assert error["code"] == "NOT_FOUND"
    assert "no-such-session" in error["message"]
    assert error["hint"]


def test_options_anywhere(stack: Stack, document: dict[str, Any]) -> None:
    """Global options are accepted before, between and after the words of a command."""
    session_id = document["session_id"]
    commands = [
        ("-o", "json", "debug", "session", "get", session_id),
        ("debug", "-o", "json", "session", "get", session_id),
        ("debug", "session", "get", session_id, "-o", "json"),
    ]
    assert [stack.cli.ok(*command).json() for command in commands] == [document] * 3


def test_db_query(stack: Stack, document: dict[str, Any]) -> None:
    """The colony's tables answer SQL, in each form of output, across both of its files."""
    sql = (
        "SELECT s.session_id, s.status, count(*) AS events FROM debug_sessions s "
        "JOIN debug_collectors c ON c.session_id = s.session_id "
        "JOIN uprobe_events e ON e.collector_id = c.collector_id "
        f"WHERE s.session_id = '{document['session_id']}' GROUP BY ALL"
    )
    row = {"session_id": document["session_id"], "status": "detached", "events": 300}
    assert stack.cli.query(sql) == [row]
    assert stack.cli.ok("db", "query", sql, "-o", "jsonl").jsonl() == [row]
    table = stack.cli.ok("db", "query", sql).stdout
    assert document["session_id"] in table
    assert "300" in table


def test_tables_for_people(stack: Stack, target: Target, document: dict[str, Any]) -> None:
    """Off a terminal, tables are plain text without colours that name what they list."""
    for command, expected in [
        (("service", "list"), target.service),
        (("agent", "list"), "agent-1"),
        (("debug", "session", "list"), document["session_id"]),
        (("debug", "session", "get", document["session_id"]), "300 entered"),
        (("debug", "session", "events", document["session_id"]), "work"),
    ]:
        shown = stack.cli.ok(*command).stdout
        assert expected in shown, command
        assert "\x1b" not in shown, command
