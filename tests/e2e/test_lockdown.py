"""``coral agent lockdown`` on a real agent with real probes: all gone within a second, and none until it is lifted."""

from __future__ import annotations

import os
import signal
import time

import grpc
import pytest
from support import build, rpc
from support.observe import ledger_faults
from support.stack import SplitStack
from support.target import running
from support.text import changed_text

from coral.agent import lockdown_control
from coral.agent.lockdown import LockdownFiles

pytestmark = pytest.mark.kernel


def _switched_within_s(split: SplitStack) -> float:
    """How long after the switch was turned the agent said that nothing is attached."""
    turned, answered = (split.state_dir / "agent" / name for name in ("lockdown", "lockdown.answer"))
    return answered.stat().st_mtime - turned.stat().st_mtime


def _refused(split: SplitStack, service: str) -> str:
    """Why an attach is refused."""
    with pytest.raises(grpc.RpcError) as refused:
        rpc.attach(split.colony, service, "work")
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION  # type: ignore[attr-defined]
    return str(refused.value.details())  # type: ignore[attr-defined]


def test_kill_switch(split: SplitStack) -> None:
    """Sessions end with their counts and the reason, new ones are refused with the way out, and lists show it.

    A wedged agent is ended and its probes with it; the next one refuses too, until the lockdown is lifted.
    """
    files = LockdownFiles(split.state_dir / "agent")
    with running(build.c_program("loop"), "--calls", 500) as target:
        session_id = rpc.attach(split.colony, target.service, "work").session_id
        target.run()
        command = ("agent", "lockdown", "--state-dir", str(files.state_dir), "--reason", "incident 7", "-o", "json")
        locked = split.cli.ok(*command).json()
        assert (locked["locked"], locked["reason"], locked["agent"]) == (True, "incident 7", "running")
        assert changed_text(target.pid) == []
        assert _switched_within_s(split) < 1.0
        session = rpc.wait_for_session(split.colony, status="detached", session_id=session_id)
        assert (session.reason_code, session.reason) == ("lockdown", "Its host was locked down (coral agent lockdown).")
        document = split.cli.session(session_id)
        assert (ledger_faults(document["ledger"]), document["ledger"]["stored"]) == ([], 500)
        deadline = time.monotonic() + 10
        while not (listed := rpc.agents(split.colony)[split.AGENT_ID].lockdown) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert listed == str(files.lockdown)
        reason = _refused(split, target.service)
        assert "incident 7: it attaches nothing. Lift it on that host, as root: coral agent lockdown --off." in reason

        assert lockdown_control.lift(files).agent == "running"
        rpc.attach(split.colony, target.service, "work")
        assert len(changed_text(target.pid)) > 0
        assert split.agent_daemon is not None
        os.kill(split.agent_daemon.process.pid, signal.SIGSTOP)
        assert lockdown_control.lock(files, "").agent == "ended"
        assert changed_text(target.pid) == []
        assert split.agent_daemon.process.wait(5) == -signal.SIGKILL

        split.start_agent()
        assert lockdown_control.look(files).lockdown is not None
        assert "is locked down since" in _refused(split, target.service)
        lockdown_control.lift(files)
        rpc.attach(split.colony, target.service, "work")
