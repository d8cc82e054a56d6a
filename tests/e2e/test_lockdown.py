"""``coral agent lockdown`` on a real agent with real probes: all gone within a second, and none until it is lifted."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from support import build, rpc
from support.observe import ledger_faults
from support.stack import SplitStack
from support.target import running
from support.text import changed_text

pytestmark = pytest.mark.kernel


def _lockdown(split: SplitStack, *options: str) -> dict[str, Any]:
    state_dir = str(split.state_dir / "agent")
    document: dict[str, Any] = split.cli.ok("agent", "lockdown", "--state-dir", state_dir, "-o", "json", *options).json()
    return document


def _listed(split: SplitStack) -> str | None:
    """What ``agent list`` says of the lockdown, once the agent's next report is there."""
    time.sleep(0.3)
    (agent,) = split.cli.ok("agent", "list", "-o", "json").json()["items"]
    lockdown: str | None = agent["lockdown"]
    return lockdown


def _switched_within_s(split: SplitStack) -> float:
    """How long after the switch was turned the agent said that nothing is attached."""
    turned, answered = (split.state_dir / "agent" / name for name in ("lockdown", "lockdown.answer"))
    return answered.stat().st_mtime - turned.stat().st_mtime


def test_kill_switch(split: SplitStack) -> None:
    """Sessions end with their counts and the reason, new ones are refused with the way out, and lists show it; a wedged agent
    is ended and its probes with it; the next one refuses too, until the lockdown is lifted.
    """
    with running(build.c_program("loop"), "--calls", 500) as target:
        first = split.cli.attach(target.service, "work")
        target.run()
        locked = _lockdown(split, "--reason", "incident 7")
        assert (locked["locked"], locked["reason"], locked["agent"]) == (True, "incident 7", "running")
        assert changed_text(target.pid) == []
        assert _switched_within_s(split) < 1.0
        session = rpc.wait_for_session(split.colony, status="detached", session_id=first["session_id"])
        assert (session.reason_code, session.reason) == ("lockdown", "Its host was locked down (coral agent lockdown).")
        assert ledger_faults(split.cli.session(first["session_id"])["ledger"]) == []
        assert session.ledger.stored == 500
        assert "incident 7" in str(_listed(split))
        refused = split.cli.run("debug", "attach", target.service, "-f", "work", "-o", "json")
        assert (refused.exit_code, refused.error()["code"]) == (1, "FAILED_PRECONDITION")
        assert "is locked down since" in refused.error()["message"]
        assert "coral agent lockdown --off" in refused.error()["hint"]
        assert split.cli.run("debug", "info", target.service, "-f", "work").exit_code == 0

        assert _lockdown(split, "--off")["locked"] is False
        assert split.cli.attach(target.service, "work")["status"] == "active"
        assert split.agent_daemon is not None
        os.kill(split.agent_daemon.process.pid, signal.SIGSTOP)
        assert _lockdown(split)["agent"] == "ended"
        assert changed_text(target.pid) == []
        assert split.agent_daemon.process.wait(5) == -signal.SIGKILL

        split.start_agent()
        assert _lockdown(split, "--status")["locked"] is True
        assert split.cli.run("debug", "attach", target.service, "-f", "work").exit_code == 1
        assert _lockdown(split, "--off") == {
            "locked": False,
            "since_ns": None,
            "by": None,
            "reason": None,
            "agent": "running",
        }
        assert split.cli.attach(target.service, "work")["status"] == "active"
