"""The commands that the first description of this system gave its users, verbatim, with real grpcurl.

Only ``-plaintext`` is added, and the ids that a command printed are put in where the description has dots.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import build
from support.stack import Stack, dev_stack
from support.target import Target, running
from support.text import changed_text

pytestmark = pytest.mark.kernel

ATTACH = """
grpcurl -d '{
  "service_name": "my-service",
  "function_name": "main.ProcessPayment",
  "agent_id": "agent-1",
  "sdk_addr": "127.0.0.1:50051",
  "duration": "60s"
}' localhost:8081 coral.colony.v1.DebugService/AttachUprobe
"""
LIST = """
grpcurl localhost:8081 coral.colony.v1.DebugService/ListDebugSessions
"""
DETACH = """
grpcurl -d '{"session_id": "..."}' \\
  localhost:8081 coral.colony.v1.DebugService/DetachUprobe
"""
START = """
grpcurl -d '{
  "service_name": "my-service",
  "function_name": "main.ProcessPayment",
  "sdk_addr": "127.0.0.1:50051",
  "duration": "60s"
}' localhost:8080 coral.mesh.v1.DebugService/StartUprobeCollector
"""
QUERY = """
grpcurl -d '{"collector_id": "..."}' \\
  localhost:8080 coral.mesh.v1.DebugService/QueryUprobeEvents
"""


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """``coral dev`` on the ports it has without being asked."""
    build.grpcurl()
    with dev_stack(tmp_path_factory.mktemp("ports"), colony_port=8081, agent_port=8080) as running_stack:
        yield running_stack


@pytest.fixture(scope="module")
def payments(dev: Stack) -> Iterator[Target]:
    """A Go program that runs as ``my-service`` and processes 400 payments a second."""
    arguments = ("-scenario", "payments", "-goroutines", 2, "-calls", 100_000, "-rate", 200)
    with running(build.go_program("truth"), *arguments, service="my-service") as target:
        target.go()
        yield target


def shell(command: str, *, value: str = "", without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Runs a command as a user types it, and returns the document it prints.

    Args:
        command: Verbatim.
        value: What stands in the place of the dots.
        without: Names of fields whose lines are left out.
    """
    lines = [line for line in command.strip().splitlines() if not any(f'"{name}"' in line for name in without)]
    typed = "\n".join(lines).replace("grpcurl ", "grpcurl -plaintext ", 1).replace('"..."', f'"{value}"')
    path = f"{build.grpcurl().parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", typed], capture_output=True, text=True, timeout=30, env={**os.environ, "PATH": path}, check=False
    )
    assert done.returncode == 0, f"{typed}\n{done.stdout}{done.stderr}"
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize("without", [(), ("agent_id", "sdk_addr")], ids=["verbatim", "without-agent_id-and-sdk_addr"])
def test_colony_commands(dev: Stack, payments: Target, without: tuple[str, ...]) -> None:
    """Attach, list and detach on the colony: the session is there, active, ends, and has stored real calls."""
    attached = shell(ATTACH, without=without)
    session_id = attached["session_id"]
    assert attached == {"session_id": session_id, "expires_at": attached["expires_at"], "success": True}
    assert changed_text(payments.pid) != []
    listed = [one for one in shell(LIST)["sessions"] if one["session_id"] == session_id]
    assert [(one["status"], one["service_name"], one["function_name"], one["agent_id"]) for one in listed] == [
        ("active", "my-service", "main.ProcessPayment", "agent-1")
    ]
    wait_for_events(dev, session_id, 50)
    assert shell(DETACH, value=session_id) == {"success": True}
    assert changed_text(payments.pid) == []
    document = dev.cli.session(session_id)
    assert (document["status"], document["ledger"]["balanced"]) == ("detached", True)
    assert document["ledger"]["stored"] >= 50


@pytest.mark.parametrize("without", [(), ("sdk_addr",)], ids=["verbatim", "without-sdk_addr"])
def test_agent_commands(dev: Stack, payments: Target, without: tuple[str, ...]) -> None:
    """Start a collector and query its events on the agent itself, without the colony."""
    started = shell(START, without=without)
    assert started["supported"] is True
    assert "error" not in started
    assert changed_text(payments.pid) != []
    events: list[dict[str, Any]] = []
    while len(events) < 20:  # the test's own time limit ends it if none come
        events = shell(QUERY, value=started["collector_id"]).get("events", [])
    for event in events:
        call = event["uprobe_event"]
        assert (call["service_name"], call["function_name"], call["event_type"]) == (
            "my-service",
            "main.ProcessPayment",
            "return",
        )
        assert int(call["duration_ns"]) >= 1
        assert call["pid"] == payments.pid
        assert event["timestamp"].startswith("20")
    stopped = shell(
        'grpcurl -d \'{"collector_id": "..."}\' localhost:8080 coral.mesh.v1.DebugService/StopUprobeCollector',
        value=started["collector_id"],
    )
    assert stopped["success"] is True
    assert changed_text(payments.pid) == []
    # nobody stored them: they are in the agent's window, and nothing claims that they balance
    assert stopped["ledger"].get("stored", "0") == "0"
    assert stopped["ledger"]["in_transit"] == stopped["ledger"]["emitted"] == stopped["last_sequence"]
    assert "balanced" not in stopped["ledger"]


def test_reflection_lists_the_services(dev: Stack) -> None:
    """Grpcurl needs no proto files: both servers describe themselves."""
    for port, service in ((8081, "coral.colony.v1.DebugService"), (8080, "coral.mesh.v1.DebugService")):
        done = subprocess.run(
            [build.grpcurl(), "-plaintext", f"localhost:{port}", "list"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert service in done.stdout.splitlines()
        assert "grpc.health.v1.Health" in done.stdout.splitlines()


def wait_for_events(dev: Stack, session_id: str, at_least: int) -> None:
    """Waits until so many events of a session are stored; the test's own time limit ends it if they never are."""
    while dev.cli.session(session_id)["ledger"]["stored"] < at_least:
        continue


def test_state_is_where_it_was_put(dev: Stack) -> None:
    """The databases are in the state directory that was given."""
    files = {path.name for path in Path(dev.state_dir).rglob("*.duckdb")}
    assert {"control.duckdb", "events.duckdb"} <= files
