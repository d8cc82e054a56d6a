"""kill -9 of the colony and of the agent, at 4,000 calls/s: what was stored is stored once, and what is unknown is said."""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import datetime
from typing import Any

import grpc
import pytest
from support import build, rpc
from support.observe import assert_stored_once, counted, every_call_stored, ledger_faults, wall_ns
from support.stack import SplitStack
from support.target import Target, running
from support.text import changed_text, wait_until_restored

pytestmark = pytest.mark.kernel

RATE = 4000


def at_4000_per_second(seconds: float) -> Any:
    """A program that makes 4,000 calls a second for so long, and exits 9."""
    return running(build.c_program("loop"), "--calls", round(RATE * seconds), "--rate", RATE, "--exit", 9)


def wait_for_stored(split: SplitStack, session_id: str, at_least: int) -> int:
    """Waits until the session's ledger has so many stored events; returns how many it has."""
    deadline = time.monotonic() + 10
    while True:
        (session,) = rpc.sessions(split.colony, session_id=session_id)
        if session.ledger.stored >= at_least:
            return int(session.ledger.stored)
        assert time.monotonic() < deadline, session
        time.sleep(0.02)


def undisturbed(target: Target) -> None:
    """The program's counters, results and exit code are those it has without Coral."""
    report = target.line()
    assert (report["wrong"], report["calls"], report["returned"]) == (0, report["calls"], report["calls"])
    assert changed_text(target.pid) == []
    assert target.finish() == 9


def test_colony_killed(split: SplitStack) -> None:
    """After the colony's death and return nothing is missing at all: every call is stored, each once, and it balances."""
    with at_4000_per_second(4) as target:
        session_id = split.cli.attach(target.service, "work")["session_id"]
        target.go()
        wait_for_stored(split, session_id, RATE // 2)
        split.kill_colony()
        time.sleep(0.7)  # the absence itself
        split.start_colony()
        (session,) = rpc.sessions(split.colony, session_id=session_id)
        assert session.status == "active"
        report = target.line()
        document = split.cli.stop(session_id)
        assert changed_text(target.pid) == []
        assert target.finish() == 9
    assert (report["wrong"], report["returned"]) == (0, 4 * RATE)
    assert ledger_faults(document["ledger"]) == []
    assert counted(document["ledger"]) == every_call_stored(4 * RATE)
    assert len(document["collectors"]) == 1
    assert document["statistics"]["calls"] == 4 * RATE
    assert_stored_once(split, document)


def test_colony_killed_again_and_again(split: SplitStack) -> None:
    """A colony that dies five times, at any moment of its storing, still stores every event exactly once."""
    with at_4000_per_second(6) as target:
        session_id = split.cli.attach(target.service, "work")["session_id"]
        target.go()
        stored = 0
        for life in range(5):
            # Each life stores something, or the next could not store it again; then it dies, sooner or later after that.
            stored = wait_for_stored(split, session_id, min(stored + 1, 6 * RATE))
            time.sleep(0.04 * life)
            split.kill_colony()
            split.start_colony()
        assert target.line()["returned"] == 6 * RATE
        document = split.cli.stop(session_id)
        assert target.finish() == 9
    assert ledger_faults(document["ledger"]) == []
    assert counted(document["ledger"]) == every_call_stored(6 * RATE)
    assert_stored_once(split, document)


def test_deadline_without_a_colony(split: SplitStack) -> None:
    """A 5 s session ends at most 1 s late with the colony dead; the colony that returns finds every event, and the end."""
    with at_4000_per_second(2) as target:
        attached = split.cli.attach(target.service, "work", duration="5s")
        expires = datetime.fromisoformat(attached["expires_at"]).timestamp()
        target.go()
        wait_for_stored(split, attached["session_id"], 100)
        split.kill_colony()
        assert changed_text(target.pid) != []
        assert target.line()["returned"] == 2 * RATE
        restored = wait_until_restored(target.pid, 10)
        assert expires - 0.1 <= restored <= expires + 1
        split.start_colony()
        rpc.wait_for_session(split.colony, session_id=attached["session_id"], status="expired")
        document = split.cli.session(attached["session_id"])
        assert target.finish() == 9
    assert (document["status"], document["reason_code"]) == ("expired", "deadline")
    assert ledger_faults(document["ledger"]) == []
    assert counted(document["ledger"]) == every_call_stored(2 * RATE)
    assert_stored_once(split, document)


def test_agent_killed(split: SplitStack) -> None:
    """After the agent's death a new collector goes on, one unknown interval covers the absence, and attach exits 6."""
    with at_4000_per_second(10) as target:
        attach = split.cli.start("debug", "attach", target.service, "-f", "work", "-d", "13s", "-o", "json")
        session = rpc.wait_for_session(split.colony, service_name=target.service, status="active")
        target.go()
        wait_for_stored(split, session.session_id, RATE // 2)
        killed = split.kill_agent()
        wait_until_restored(target.pid, 5)
        time.sleep(0.7)  # the absence itself
        split.start_agent()
        deadline = time.monotonic() + 10
        while (
            len(rpc.sessions(split.colony, session_id=session.session_id)[0].collectors) < 2 or changed_text(target.pid) == []
        ):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        back = time.time()
        assert rpc.sessions(split.colony, session_id=session.session_id)[0].status == "active"
        wait_for_stored(split, session.session_id, RATE)
        assert target.line()["returned"] == 10 * RATE
        stdout, stderr = attach.communicate(timeout=20)
        assert changed_text(target.pid) == []
        assert target.finish() == 9
    document = json.loads(stdout)
    assert (document["status"], document["reason_code"]) == ("expired", "deadline")
    assert attach.returncode == 6, stderr.decode()
    assert document["ledger"]["balanced"] is None
    (interval,) = document["ledger"]["unknown_intervals"]
    begin, end = (datetime.fromisoformat(interval[name]).timestamp() for name in ("from", "to"))
    assert killed - 2.1 <= begin <= killed
    assert killed < end <= back + 0.5
    assert interval["cause"]
    first, second = document["collectors"]
    assert first["collector_id"] != second["collector_id"]
    assert (first["ledger"]["unknown_intervals"], second["ledger"]["unknown_intervals"]) == ([interval], [])
    assert ledger_faults(second["ledger"]) == []
    assert second["ledger"]["stored"] == second["ledger"]["returned"] > 0
    assert_stored_once(split, document)
    times = [wall_ns(event["timestamp"]) for event in split.cli.events(document["session_id"])]
    assert not [at for at in times if killed * 1e9 + 5e7 < at < end * 1e9 - 1e9], "events of the time without an agent"


def test_agent_that_never_returns(split: SplitStack) -> None:
    """With its only agent gone for good a session is lost soon after its deadline, and never called stopped or active."""
    with at_4000_per_second(0.5) as target:
        attached = split.cli.attach(target.service, "work", duration="3s")
        target.go()
        wait_for_stored(split, attached["session_id"], 100)
        split.kill_agent()
        undisturbed(target)
        rpc.wait_for_agent(split.colony, split.AGENT_ID, "offline", 15)
        rpc.wait_for_session(split.colony, 20, session_id=attached["session_id"], status="lost")
        document = split.cli.session(attached["session_id"])
    assert (document["status"], document["reason_code"]) == ("lost", "agent_gone")
    assert split.AGENT_ID in document["reason"]
    assert document["ledger"]["balanced"] is None
    assert len(document["ledger"]["unknown_intervals"]) == 1
    assert_stored_once(split, document)


def test_detach_with_a_dead_agent(split: SplitStack) -> None:
    """Detaching while the agent is away ends the session, names the agent, and claims no balance; attaching is refused."""
    with at_4000_per_second(0.5) as target:
        session_id = split.cli.attach(target.service, "work")["session_id"]
        split.kill_agent()
        stopped = split.cli.run("debug", "session", "stop", session_id, "-o", "json")
        document = split.cli.session(session_id)
        assert stopped.exit_code == 0, stopped.stderr
        assert document["status"] == "detached"
        assert split.AGENT_ID in document["reason"]
        assert document["ledger"]["balanced"] is None
        rpc.wait_for_agent(split.colony, split.AGENT_ID, "offline", 15)
        with pytest.raises(grpc.RpcError) as refused:
            rpc.attach(split.colony, target.service, "work", agent_id=split.AGENT_ID)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert split.AGENT_ID in str(refused.value.details())
        target.go()
        undisturbed(target)


def test_agent_returns_to_a_finished_session(split: SplitStack) -> None:
    """An agent frozen while its session is detached leaves no probe behind once it goes on."""
    with at_4000_per_second(0.5) as target:
        session_id = split.cli.attach(target.service, "work")["session_id"]
        assert split.agent_daemon is not None
        os.kill(split.agent_daemon.process.pid, signal.SIGSTOP)
        try:
            document = split.cli.stop(session_id)
            assert document["status"] == "detached"
            assert changed_text(target.pid) != []
        finally:
            os.kill(split.agent_daemon.process.pid, signal.SIGCONT)
        wait_until_restored(target.pid, 20)
        target.go()
        undisturbed(target)


def test_both_killed(split: SplitStack) -> None:
    """Colony and agent killed at once: the target never notices; after their return the session goes on to its deadline."""
    with at_4000_per_second(3) as target:
        attached = split.cli.attach(target.service, "work", duration="12s")
        target.go()
        wait_for_stored(split, attached["session_id"], 100)
        split.kill_agent()
        split.kill_colony()
        wait_until_restored(target.pid, 5)
        split.start_colony()
        split.start_agent()
        ended = rpc.wait_for_session(split.colony, 20, session_id=attached["session_id"], status="expired")
        assert ended.reason_code == "deadline"
        undisturbed(target)
        document = split.cli.session(attached["session_id"])
    assert len(document["collectors"]) == 2
    assert len(document["ledger"]["unknown_intervals"]) == 1
    assert_stored_once(split, document)
