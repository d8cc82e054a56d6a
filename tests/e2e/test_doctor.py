"""``coral doctor``: what works here is said to work because it was tried, and what does not comes with what to do."""

from __future__ import annotations

import json
import socket
import subprocess
from typing import Any

import pytest
from support.cli import CORAL, clean_environment
from support.stack import Stack

pytestmark = pytest.mark.kernel


def examined(
    *options: str, env: dict[str, str] | None = None, without_capabilities: bool = False
) -> tuple[dict[str, Any], int]:
    """The checks by name, and the exit code."""
    fewer = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"] if without_capabilities else []
    done = subprocess.run(
        [*fewer, str(CORAL), "doctor", "-o", "json", *options],
        capture_output=True,
        env=clean_environment(env),
        timeout=60,
        check=False,
    )
    checks = json.loads(done.stdout)["checks"]
    assert [sorted(check) for check in checks] == [["hint", "message", "name", "status"]] * len(checks)
    for check in checks:
        assert check["status"] in ("ok", "warn", "fail")
        assert bool(check["hint"]) == (check["status"] != "ok"), check
    return {check["name"]: check for check in checks}, done.returncode


def test_a_host_that_can_run_all(stack: Stack) -> None:
    """As root, beside a running colony and agent, nothing fails; the probes were attached and their cost is given in µs."""
    any_port = {
        "CORAL_COLONY__LISTEN": "127.0.0.1:0",
        "CORAL_AGENT__LISTEN": "127.0.0.1:0",
        "CORAL_AGENT__METRICS_LISTEN": "127.0.0.1:0",
    }
    found, exit_code = examined("--colony", stack.colony, env=any_port)
    assert exit_code == 0
    statuses = {name: check["status"] for name, check in found.items()}
    statuses.pop("clock")  # the host's own affair
    assert set(statuses.values()) == {"ok"}, statuses
    assert "µs" in found["probes"]["message"]
    assert found["agent metrics"]["message"] == "127.0.0.1:0 is free."
    assert "1 of 1 agents" in found["colony"]["message"]
    assert found["colony clock"]["message"] == "This host's clock and the colony's agree."


def test_what_is_in_the_way() -> None:
    """Without privileges, with a taken port and no colony, each is named with what to do, and the exit code is 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found, exit_code = examined(
            "--colony", "127.0.0.1:1", env={"CORAL_COLONY__LISTEN": f"127.0.0.1:{port}"}, without_capabilities=True
        )
    assert exit_code == 1
    assert found["privileges"]["status"] == "fail"
    assert "CAP_BPF" in found["privileges"]["message"]
    assert "sudo" in found["privileges"]["hint"]
    assert found["probes"]["status"] == "fail"
    assert found["colony port"]["status"] == "warn"
    assert str(port) in found["colony port"]["message"]
    assert "--listen" in found["colony port"]["hint"]
    assert found["colony"]["status"] == "warn"
    assert "coral dev" in found["colony"]["hint"]


def test_settings_that_cannot_be_read() -> None:
    """A mistake in the settings is one failed check, with the place and the key, and the rest is checked all the same."""
    found, exit_code = examined(env={"CORAL_AGENT__RING_BYTES": "many"})
    assert exit_code == 1
    assert found["settings"]["status"] == "fail"
    assert "RING_BYTES" in found["settings"]["message"]
    assert found["database"]["status"] == "ok"
