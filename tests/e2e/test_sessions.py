"""How sessions live and end: deadlines, limits, filters, instances that come and go."""

from __future__ import annotations

import signal
import time
from datetime import datetime
from typing import Any

import pytest
from support import build, rpc
from support.observe import assert_stored_once, counted, every_call_stored, ledger_faults, observe
from support.stack import Stack
from support.target import running, unique_service
from support.text import changed_text, wait_until_restored

from coral.wire._generated.mesh.v1 import ebpf_pb2

pytestmark = pytest.mark.kernel


def seconds(timestamp: str) -> float:
    """Seconds since the epoch of an RFC 3339 time."""
    return datetime.fromisoformat(timestamp).timestamp()


def instances(document: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The instances of the only collector, by pid."""
    (collector,) = document["collectors"]
    return {instance["pid"]: instance for instance in collector["instances"]}


def wait_for_instance(stack: Stack, session_id: str, pid: int, status: str) -> None:
    """Waits until the session knows an instance as ``status``."""
    deadline = time.monotonic() + 10
    while True:
        (session,) = rpc.sessions(stack.colony, session_id=session_id)
        if any(one.pid == pid and one.status == status for collector in session.collectors for one in collector.instances):
            return
        assert time.monotonic() < deadline, f"{pid} is not {status}: {session}"
        time.sleep(0.02)


def test_deadline(stack: Stack) -> None:
    """At the deadline, not before it and at most 1 s later, the session is expired and the text is the file's again."""
    with running(build.c_program("loop"), "--calls", 500, "--rate", 1000) as target:
        before = time.time()
        attached = stack.cli.attach(target.service, "work", duration="2s")
        accepted = seconds(attached["started_at"])
        expires = seconds(attached["expires_at"])
        assert before - 0.1 <= accepted <= time.time()
        assert expires - accepted == pytest.approx(2, abs=0.05)
        assert target.run()["returned"] == 500
        restored = wait_until_restored(target.pid, 5)
        assert expires - 0.1 <= restored <= expires + 1
        ended = rpc.wait_for_session(stack.colony, session_id=attached["session_id"], status="expired")
        assert ended.reason_code == "deadline"
        document = stack.cli.session(attached["session_id"])
        assert -0.1 <= seconds(document["ended_at"]) - expires <= 1
        assert target.finish() == 0
    assert (document["status"], document["reason_code"]) == ("expired", "deadline")
    assert [one["status"] for one in instances(document).values()] == ["detached"]
    assert ledger_faults(document["ledger"]) == []
    assert counted(document["ledger"]) == every_call_stored(500)


def test_detach_and_detach_again(stack: Stack) -> None:
    """Detaching ends a session at once; detaching it again succeeds and changes nothing."""
    with running(build.c_program("loop"), "--calls", 100) as target:
        seen = observe(stack, target, "work")
    document = seen.document
    assert (document["status"], document["reason_code"]) == ("detached", "user")
    assert stack.cli.stop(document["session_id"]) == document
    assert stack.cli.session(document["session_id"]) == document


def test_detach_before_any_event(stack: Stack) -> None:
    """A session that saw no call ends with an empty, balanced ledger."""
    with running(build.c_program("loop"), "--calls", 0) as target:
        seen = observe(stack, target, "work")
    assert counted(seen.ledger) == {}
    assert seen.document["statistics"]["calls"] == 0
    assert seen.events == []


def test_short_session_loses_nothing(stack: Stack) -> None:
    """What was called a moment before the detach is stored: no tick has to come first."""
    with running(build.c_program("loop"), "--calls", 50) as target:
        seen = observe(stack, target, "work")
    assert counted(seen.ledger) == every_call_stored(50)


def test_max_events(stack: Stack) -> None:
    """After max_events events the session ends as detached; calls beyond are filtered, and none is unaccounted for."""
    with running(build.c_program("loop"), "--calls", 3000, "--rate", 3000) as target:
        session_id = stack.cli.attach(target.service, "work", "--max-events", "100")["session_id"]
        target.go()
        ended = rpc.wait_for_session(stack.colony, session_id=session_id, status="detached")
        assert ended.reason_code == "max_events"
        wait_until_restored(target.pid, 5)
        assert target.line()["returned"] == 3000
        document = stack.cli.session(session_id)
        assert target.finish() == 0
    assert ledger_faults(document["ledger"]) == []
    ledger = document["ledger"]
    assert ledger["stored"] == 100
    assert ledger["returned"] == 100 + ledger["filtered"] <= 3000
    assert len(stack.cli.events(session_id)) == 100


def test_sample(stack: Stack) -> None:
    """With --sample 10 every tenth call is stored, and the others are counted as sampled out."""
    with running(build.c_program("loop"), "--calls", 1000) as target:
        seen = observe(stack, target, "work", "--sample", "10")
    assert counted(seen.ledger) == {"entered": 1000, "returned": 1000, "emitted": 100, "stored": 100, "sampled_out": 900}
    assert len(seen.events) == 100


def test_min_duration(stack: Stack) -> None:
    """With --min-duration exactly the calls that took so long are stored, as whole calls; the others leave nothing behind."""
    with running(build.c_program("loop"), "--calls", 0, "--slow", 30, "--slow-max-ms", 30) as target:
        seen = observe(stack, target, "slow", "--min-duration", "15ms")
    limit_ns = 15_000_000
    surely = sum(timing["inner_ns"] >= limit_ns for timing in seen.truth["slow"])
    possibly = sum(timing["outer_ns"] >= limit_ns for timing in seen.truth["slow"])
    ledger = seen.ledger
    assert (ledger["entered"], ledger["returned"], ledger["unreturned"]) == (30, 30, 0)
    assert surely <= ledger["stored"] <= possibly
    assert ledger["stored"] + ledger["filtered"] == 30
    assert all(event["duration_ns"] >= limit_ns and event["event_type"] == "return" for event in seen.events)


def test_max_duration(stack: Stack) -> None:
    """With --max-duration exactly the calls that took no longer are stored."""
    with running(build.c_program("loop"), "--calls", 0, "--slow", 30, "--slow-max-ms", 30) as target:
        seen = observe(stack, target, "slow", "--max-duration", "15ms")
    limit_ns = 15_000_000
    surely = sum(timing["outer_ns"] <= limit_ns for timing in seen.truth["slow"])
    possibly = sum(timing["inner_ns"] <= limit_ns for timing in seen.truth["slow"])
    ledger = seen.ledger
    assert (ledger["entered"], ledger["returned"], ledger["stored"] + ledger["filtered"]) == (30, 30, 30)
    assert surely <= ledger["stored"] <= possibly
    assert all(event["duration_ns"] <= limit_ns for event in seen.events)


def test_max_events_per_second(stack: Stack) -> None:
    """With 100 events per second no more are stored, and the other calls are counted as rate limited."""
    limit = ebpf_pb2.UprobeFilter(max_events_per_second=100)
    with running(build.c_program("loop"), "--calls", 2000, "--rate", 2000) as target:
        session_id = rpc.attach(stack.colony, target.service, "work", filter=limit).session_id
        truth = target.run()
        ledger = stack.cli.stop(session_id)["ledger"]
        assert target.finish() == 0
    assert ledger_faults(ledger) == []
    assert (ledger["returned"], ledger["stored"] + ledger["rate_limited"]) == (2000, 2000)
    worked_s = (truth["wall_to_ns"] - truth["wall_from_ns"]) / 1e9
    assert 10 <= ledger["stored"] <= 100 * (worked_s + 0.1) + 2  # a tenth of a second may be used ahead


@pytest.mark.parametrize("field", ["capture_args", "capture_return"])
def test_capture_is_not_passed_over(stack: Stack, field: str) -> None:
    """What is asked for and not done is said: a warning in the answer."""
    with running(build.c_program("loop")) as target:
        response = rpc.attach(stack.colony, target.service, "work", config=ebpf_pb2.UprobeConfig(**{field: True}))
        stack.cli.stop(response.session_id)
    assert response.success
    assert "does not capture arguments or return values" in response.error


def test_filtered_calls_leave_no_entries(stack: Stack) -> None:
    """More filtered calls than there is room for open ones: every one is let go at its return."""
    with running(build.c_program("recursion"), "--depth", 500, "--times", 400) as target:
        seen = observe(stack, target, "descend", "--min-duration", "10s")
    assert counted(seen.ledger) == {"entered": 200_400, "returned": 200_400, "filtered": 200_400}


def test_count_mode(stack: Stack) -> None:
    """In mode count only entries are probed, and every call is unseen and filtered."""
    with running(build.c_program("loop"), "--calls", 5000) as target:
        seen = observe(stack, target, "work", "--mode", "count")
    assert counted(seen.ledger) == {"entered": 5000, "unseen": 5000, "filtered": 5000}
    assert [site["kind"] for one in instances(seen.document).values() for site in one["sites"]] == ["entry"]
    assert seen.document["statistics"]["calls"] == 5000


def test_every_instance_of_a_service(stack: Stack) -> None:
    """All processes of a service are watched, of whatever executable; one without the function is skipped, not failed."""
    service = unique_service("many")
    program, other_build = build.c_program("loop"), build.c_program("loop", "-O0")
    with (
        running(program, "--calls", 100, service=service) as first,
        running(program, "--calls", 200, service=service) as second,
        running(other_build, "--calls", 300, service=service) as third,
        running(build.c_program("recursion"), "--depth", 3, service=service) as without,
    ):
        session_id = stack.cli.attach(service, "work")["session_id"]
        assert [one.run()["wrong"] for one in (first, second, third, without)] == [0] * 4
        document = stack.cli.stop(session_id)
        everyone = (first, second, third, without)
        assert [changed_text(one.pid) for one in everyone] == [[]] * 4
        shown = instances(document)
        assert {pid: one["status"] for pid, one in shown.items()} == {
            first.pid: "detached",
            second.pid: "detached",
            third.pid: "detached",
            without.pid: "skipped",
        }
        assert "work" in shown[without.pid]["reason"]
        events = stack.cli.events(session_id)
        by_pid = {one.pid: sum(event["pid"] == one.pid for event in events) for one in everyone}
        assert by_pid == {first.pid: 100, second.pid: 200, third.pid: 300, without.pid: 0}
    assert ledger_faults(document["ledger"]) == []
    assert counted(document["ledger"]) == every_call_stored(600)


@pytest.mark.parametrize("same_file", [True, False], ids=["same-file", "another-build"])
def test_process_that_starts_during_the_session(stack: Stack, same_file: bool) -> None:
    """A process of the service that starts while the session runs becomes an instance, and all of its calls are counted."""
    service = unique_service("growing")
    late_program = build.c_program("loop") if same_file else build.c_program("loop", "-O0")
    with running(build.c_program("loop"), "--calls", 100, service=service) as first:
        session_id = stack.cli.attach(service, "work")["session_id"]
        with running(late_program, "--calls", 250, "--exit", 5, service=service) as late:
            wait_for_instance(stack, session_id, late.pid, "attached")
            assert late.run()["wrong"] == 0
            assert first.run()["wrong"] == 0
            assert late.finish() == 5
            wait_for_instance(stack, session_id, late.pid, "exited")
        document = stack.cli.stop(session_id)
        assert changed_text(first.pid) == []
    assert ledger_faults(document["ledger"]) == []
    assert counted(document["ledger"]) == every_call_stored(350)
    assert sorted(instances(document)) == sorted([first.pid, late.pid])
    assert instances(document)[late.pid]["exit_status"] == 5


def test_all_instances_end_and_one_comes(stack: Stack) -> None:
    """A session whose last process has gone stays active, and takes up the next one."""
    service = unique_service("restarted")
    program = build.c_program("loop")
    with running(program, "--calls", 120, service=service) as first:
        session_id = stack.cli.attach(service, "work")["session_id"]
        assert first.run()["returned"] == 120
        assert first.finish() == 0
        wait_for_instance(stack, session_id, first.pid, "exited")
    assert stack.cli.session(session_id)["status"] == "active"
    with running(program, "--calls", 130, service=service) as second:
        wait_for_instance(stack, session_id, second.pid, "attached")
        assert second.run()["returned"] == 130
        document = stack.cli.stop(session_id)
        assert second.finish() == 0
    assert ledger_faults(document["ledger"]) == []
    assert counted(document["ledger"]) == every_call_stored(250)


def test_two_sessions_on_one_function(stack: Stack) -> None:
    """Two sessions on the same function see every call each, and ending one leaves the other whole."""
    with running(build.c_program("loop"), "--calls", 400) as target:
        first = stack.cli.attach(target.service, "work")["session_id"]
        second = stack.cli.attach(target.service, "work", "--min-duration", "1h")["session_id"]
        with_none = stack.cli.attach(target.service, "work")["session_id"]
        assert counted(stack.cli.stop(with_none)["ledger"]) == {}
        assert changed_text(target.pid) != []
        assert target.run()["wrong"] == 0
        documents = [stack.cli.stop(session_id) for session_id in (first, second)]
        assert changed_text(target.pid) == []
        assert target.finish() == 0
    assert [ledger_faults(document["ledger"]) for document in documents] == [[], []]
    assert counted(documents[0]["ledger"]) == every_call_stored(400)
    assert counted(documents[1]["ledger"]) == {"entered": 400, "returned": 400, "filtered": 400}


def test_kill_of_the_target(stack: Stack, tmp_path: Any) -> None:
    """A target killed at 4,000 calls/s: the ledger agrees with its counters to within the call it died in."""
    counters = tmp_path / "counters"
    with running(
        build.c_program("loop"), "--calls", 100_000, "--rate", 4000, env={"TRUTH_COUNTERS": str(counters)}
    ) as target:
        session_id = stack.cli.attach(target.service, "work")["session_id"]
        target.go()
        time.sleep(1.2)  # the load itself: there is no event to wait for
        target.kill()
        wait_for_instance(stack, session_id, target.pid, "exited")
        document = stack.cli.stop(session_id)
    calls, returned = (int.from_bytes(counters.read_bytes()[at : at + 8], "little") for at in (0, 8))
    ledger = document["ledger"]
    assert ledger_faults(ledger) == []
    assert calls > 3000
    assert calls - 1 <= ledger["entered"] <= calls
    assert returned <= ledger["returned"] <= returned + 1
    assert ledger["stored"] == ledger["returned"]
    assert instances(document)[target.pid]["exit_status"] == -signal.SIGKILL
    assert_stored_once(stack, document)
