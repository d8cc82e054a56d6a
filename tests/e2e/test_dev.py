"""``coral dev`` as a user runs it. Needs root: the agent attaches probes."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import build
from support.target import running
from support.text import changed_text

CORAL = [sys.executable, "-m", "coral"]
pytestmark = pytest.mark.kernel


@contextmanager
def dev(*options: str) -> Iterator[subprocess.Popen[str]]:
    """A ``coral dev`` on free ports."""
    command = [*CORAL, "dev", "--colony-port", "0", "--agent-port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def ready(process: subprocess.Popen[str]) -> dict[str, str]:
    """Its ready line, which is the first thing it says."""
    assert process.stderr
    line = process.stderr.readline()
    facts: dict[str, str] = json.loads(line)
    return facts


def children(process: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """Colony and agent."""
    found: dict[str, psutil.Process] = {}
    for child in psutil.Process(process.pid).children():
        found[child.cmdline()[4]] = child
    assert sorted(found) == ["agent", "colony"]
    return found


def test_ready_line_tells_where() -> None:
    """The ready line tells where colony and agent are, and the agent is there at once. State goes with SIGTERM, exit 143."""
    with dev() as process:
        facts = ready(process)
        assert sorted(facts) == ["agent", "colony", "ready", "state_dir"]
        listed = subprocess.run(
            [*CORAL, "--colony", facts["colony"], "agent", "list", "-o", "json"],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        [agent] = json.loads(listed.stdout)["items"]
        assert (agent["agent_id"], agent["address"], agent["status"]) == ("agent-1", facts["agent"], "online")
        process.terminate()
        assert process.wait(60) == 143
        assert not Path(facts["state_dir"]).exists()


def test_with_credentials(tmp_path: Path) -> None:
    """With --auth the ready line says where certificate and token are: with them the colony answers, else exit 4."""
    with dev("--auth", "--state-dir", str(tmp_path / "state")) as process:
        facts = ready(process)
        assert sorted(facts) == ["agent", "ca", "colony", "ready", "state_dir", "token_file"]
        token = Path(facts["token_file"])
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        line = [*CORAL, "--colony", facts["colony"], "--ca", facts["ca"], "agent", "list", "-o", "json"]
        environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path), "CORAL_TOKEN": token.read_text()}
        listed = subprocess.run(line, env=environment, capture_output=True, text=True, check=True, timeout=60)
        [agent] = json.loads(listed.stdout)["items"]
        assert (agent["agent_id"], agent["address"], agent["status"]) == ("agent-1", facts["agent"], "online")
        _probed_and_put_out([*CORAL, "--colony", facts["colony"], "--ca", facts["ca"]], environment)
        del environment["CORAL_TOKEN"]
        assert subprocess.run(line, env=environment, capture_output=True, check=False, timeout=60).returncode == 4


def _probed_and_put_out(coral: Sequence[str], environment: Mapping[str, str]) -> None:
    """A real session over mutual TLS and signed commands; then the agent is revoked with another one running, which takes its
    probes out of the program.
    """

    def run(*arguments: str) -> dict[str, Any]:
        line = [*coral, *arguments, "-o", "json"]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True, timeout=60)
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    with running(build.c_program("loop"), "--calls", 500) as target:
        attach = ("debug", "attach", target.service, "-f", "work", "--no-wait")
        first = run(*attach)
        assert (first["status"], first["requested_by"]) == ("active", "admin")
        target.run()
        assert run("debug", "session", "stop", first["session_id"])["ledger"]["stored"] == 500
        second = run(*attach)
        assert changed_text(target.pid) != []
        assert run("agent", "revoke", "agent-1") == {"agent_id": "agent-1", "certificates": 1, "collectors": 1}
        assert changed_text(target.pid) == []
        ended = run("debug", "session", "get", second["session_id"])
        assert (ended["status"], ended["reason_code"]) == ("failed", "agent_gone")


def test_ctrl_c_stops_both_and_exits_0(tmp_path: Path) -> None:
    """A state directory that was given stays."""
    with dev("--state-dir", str(tmp_path / "state")) as process:
        ready(process)
        running = children(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert not any(child.is_running() for child in running.values())
        assert (tmp_path / "state" / "colony").is_dir()


@pytest.mark.parametrize(("victim", "other"), [("agent", "colony"), ("colony", "agent")])
def test_a_child_that_dies_ends_it(victim: str, other: str) -> None:
    """It says which and how, stops the other, and exits 1."""
    with dev() as process:
        ready(process)
        running = children(process)
        running[victim].kill()
        assert process.wait(60) == 1
        assert process.stderr
        assert process.stderr.readline() == f"Error: The {victim} was ended by SIGKILL.\n"
        assert not running[other].is_running()


def test_its_children_do_not_outlive_it() -> None:
    """Even when it is killed, so that no probe stays behind."""
    with dev() as process:
        ready(process)
        running = list(children(process).values())
        process.kill()
        process.wait(60)
        _, alive = psutil.wait_procs(running, timeout=30)
        assert alive == []


def test_without_root_it_says_what_is_missing() -> None:
    """What is missing, what still works, exit 1."""
    assert os.geteuid() == 0
    done = subprocess.run(
        # The user stays: another one may not reach this checkout, and capabilities are all that makes root of it.
        ["setpriv", "--inh-caps=-all", "--bounding-set=-all", *CORAL, "dev"],
        capture_output=True, text=True, timeout=60, check=False, cwd="/",
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Error: The agent attaches probes to other processes and needs root; this process lacks CAP_BPF, CAP_PERFMON,"
        " CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH.",
        "Run `sudo coral dev`. Without root these work: `coral colony start --insecure`, and every command that asks a colony"
        " (--colony HOST:PORT).",
    ]
