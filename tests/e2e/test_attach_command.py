"""``coral debug attach`` and ``coral dev`` as processes: how they wait, end, and answer signals."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from support import build, rpc
from support.cli import CORAL, clean_environment
from support.observe import counted, every_call_stored, ledger_faults
from support.stack import Daemon, Stack, dev_stack
from support.target import running
from support.text import changed_text

pytestmark = pytest.mark.kernel


def test_attach_waits_until_the_deadline(stack: Stack) -> None:
    """An attach runs to its deadline, prints one session document with the final ledger, and exits 0."""
    with running(build.c_program("loop"), "--calls", 200, "--rate", 400) as target:
        attach = stack.cli.start("debug", "attach", target.service, "-f", "work", "-d", "2s", "-o", "json")
        rpc.wait_for_session(stack.colony, service_name=target.service, status="active")
        assert target.run()["returned"] == 200
        stdout, stderr = attach.communicate(timeout=20)
    assert attach.returncode == 0, stderr.decode()
    document = json.loads(stdout)
    assert (document["status"], document["reason_code"]) == ("expired", "deadline")
    assert ledger_faults(document["ledger"]) == []
    assert counted(document["ledger"]) == every_call_stored(200)


def test_attach_for_people(stack: Stack) -> None:
    """Off a terminal an attach tells in plain lines what it does and found: calls, percentiles, the slowest, the ledger."""
    with running(build.c_program("loop"), "--calls", 200, "--slow", 0, "--rate", 400) as target:
        attach = stack.cli.start("debug", "attach", target.service, "-f", "work", "-d", "1500ms")
        rpc.wait_for_session(stack.colony, service_name=target.service, status="active")
        assert target.run()["returned"] == 200
        stdout, stderr = (text.decode() for text in attach.communicate(timeout=20))
    assert attach.returncode == 0, stderr
    for expected in (
        target.service,
        "work",
        "200",
        "p50",
        "p99",
        "slowest",
        f"pid {target.pid}",
        "200 entered",
        "nothing lost",
    ):
        assert expected in stdout, expected
    assert "\x1b" not in stdout + stderr


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
def test_signal_detaches(stack: Stack, number: int, exit_code: int) -> None:
    """Ctrl-C and SIGTERM detach, print the result, and say by the exit code which of them it was."""
    with running(build.c_program("loop"), "--calls", 300) as target:
        attach = stack.cli.start("debug", "attach", target.service, "-f", "work", "-d", "60s", "-o", "json")
        rpc.wait_for_session(stack.colony, service_name=target.service, status="active")
        assert target.run()["returned"] == 300
        attach.send_signal(number)
        stdout, stderr = attach.communicate(timeout=20)
        assert changed_text(target.pid) == []
    assert attach.returncode == exit_code, stderr.decode()
    document = json.loads(stdout)
    assert (document["status"], document["reason_code"]) == ("detached", "user")
    assert ledger_faults(document["ledger"]) == []
    assert counted(document["ledger"]) == every_call_stored(300)


def test_no_wait_returns_while_it_runs(stack: Stack) -> None:
    """--no-wait returns with the active session's document, and the session goes on without the command."""
    with running(build.c_program("loop"), "--calls", 10) as target:
        attached = stack.cli.attach(target.service, "work")
        assert (attached["status"], attached["ended_at"], attached["ledger"]["balanced"]) == ("active", None, None)
        assert attached["collectors"][0]["instances"][0]["status"] == "attached"
        assert stack.cli.session(attached["session_id"])["status"] == "active"
        assert stack.cli.stop(attached["session_id"])["status"] == "detached"


def test_attach_ends_with_max_events(stack: Stack) -> None:
    """An attach whose session ends before its deadline ends with it; no call was lost, so it exits 0."""
    with running(build.c_program("loop"), "--calls", 20) as target:
        attach = stack.cli.start(
            "debug", "attach", target.service, "-f", "work", "-d", "60s", "-o", "json", "--max-events", "20"
        )
        rpc.wait_for_session(stack.colony, service_name=target.service, status="active")
        assert target.run()["returned"] == 20
        stdout, stderr = attach.communicate(timeout=20)
    assert attach.returncode == 0, stderr.decode()
    assert json.loads(stdout)["reason_code"] == "max_events"


def test_no_colony(tmp_path: Path) -> None:
    """Without a colony a command says so, names the way to one, and exits 5."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    done = subprocess.run(
        [CORAL, "service", "list", "--colony", address, "-o", "json"],
        capture_output=True,
        text=True,
        timeout=30,
        env=clean_environment(),
        check=False,
    )
    assert done.returncode == 5
    error = json.loads(done.stderr)["error"]
    assert error["code"] == "UNAVAILABLE"
    assert address in error["message"]
    assert "coral dev" in error["hint"]


@pytest.mark.parametrize("flag", ["--colony-port", "--agent-port"])
def test_dev_on_a_taken_port(tmp_path: Path, flag: str) -> None:
    """``coral dev`` on a taken port exits 1, and names the port and the flag that changes it."""
    ports = {"--colony-port": "0", "--agent-port": "0"}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports[flag] = str(taken.getsockname()[1])
        command = [
            str(CORAL),
            "dev",
            "--state-dir",
            str(tmp_path / "state"),
            *(part for pair in ports.items() for part in pair),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean_environment(), check=False)
    assert done.returncode == 1
    assert ports[flag] in done.stderr
    assert flag in done.stderr
    assert '"ready"' not in done.stderr


def test_two_devs_at_once(stack: Stack, tmp_path: Path) -> None:
    """A second ``coral dev`` runs beside the first on ports of its own, sees the same programs, and is not seen by it."""
    with running(build.c_program("loop"), "--calls", 150) as target, dev_stack(tmp_path) as second:
        sessions = [one.cli.attach(target.service, "work")["session_id"] for one in (stack, second)]
        assert target.run()["returned"] == 150
        documents = [one.cli.stop(session) for one, session in zip((stack, second), sessions, strict=True)]
        assert changed_text(target.pid) == []
        names = {item["name"] for item in second.cli.ok("service", "list", "-o", "json").json()["items"]}
        assert not {name for name in names if "coral" in name}
    assert [counted(document["ledger"]) for document in documents] == [every_call_stored(150)] * 2


def test_dev_ends_and_leaves_nothing(tmp_path: Path) -> None:
    """``coral dev`` ends its daemons with it, and no breakpoint stays."""
    state = ["--state-dir", str(tmp_path / "state"), "--colony-port", "0", "--agent-port", "0"]
    dev = Daemon(["dev", *state], tmp_path / "dev.log")
    facts = dev.wait_for_ready()
    assert sorted(facts) == ["agent", "colony", "ready", "state_dir"]
    assert facts["state_dir"] == str(tmp_path / "state")
    with running(build.c_program("loop"), "--calls", 10) as target:
        rpc.attach(facts["colony"], target.service, "work")
        assert changed_text(target.pid) != []
        begin = time.monotonic()
        assert dev.stop(signal.SIGTERM) == 143
        assert time.monotonic() - begin < 12
        assert changed_text(target.pid) == []
        assert target.run()["wrong"] == 0
        assert target.finish() == 0
    for address in (facts["colony"], facts["agent"]):
        host, port = address.split(":")
        with socket.socket() as probe:
            assert probe.connect_ex((host, int(port))) != 0
