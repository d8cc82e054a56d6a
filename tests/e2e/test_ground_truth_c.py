"""C programs that count their own calls, in every shape that calls take: Coral's counts equal theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import build
from support.observe import (
    assert_durations,
    counted,
    every_call_stored,
    ledger_faults,
    observe,
    sites,
)
from support.rpc import wait_for_session
from support.stack import Stack
from support.target import running, unique_service
from support.text import changed_text

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param((), id="O2-pie"),
        pytest.param(("-O0",), id="O0"),
        pytest.param(("-O2", "-no-pie"), id="no-pie"),
        pytest.param(("-O2", "-static"), id="static"),
        pytest.param(("-O2", "-fcf-protection=full"), id="endbr64"),
        pytest.param(("-O0", "-fcf-protection=full"), id="O0-endbr64"),
        pytest.param(("-O3", "-fno-omit-frame-pointer"), id="frame-pointer"),
        pytest.param(("-Os", "-Wl,-z,noseparate-code"), id="text-shares-a-page-with-headers"),
        pytest.param(("-O2", "-Wl,-Ttext=0x900000"), id="text-far-from-where-it-is-in-the-file"),
        pytest.param(("-rdynamic", "-s"), id="stripped-with-dynsym"),
    ],
)
def test_plain_calls(stack: Stack, flags: tuple[str, ...]) -> None:
    """However a program is built, every call is counted, stored once, and returns what it would have returned."""
    with running(build.c_program("loop", *flags), "--calls", 2000, "--exit", 3) as target:
        seen = observe(stack, target, "work", exit_code=3)
    assert seen.truth["wrong"] == 0
    assert counted(seen.ledger) == every_call_stored(2000)
    assert len(seen.events) == 2000
    assert {(event["pid"], event["tid"], event["event_type"], event["function_name"]) for event in seen.events} == {
        (target.pid, target.pid, "return", "work")
    }


def test_durations(stack: Stack) -> None:
    """Each duration lies between what the function and what its caller measured; calls of 1 to 50 ms are within 5 %."""
    with running(build.c_program("loop"), "--calls", 0, "--slow", 40) as target:
        seen = observe(stack, target, "slow")
    assert counted(seen.ledger) == every_call_stored(40)
    assert_durations(seen.events, seen.truth["slow"])


def test_calls_of_seconds(stack: Stack) -> None:
    """A call that takes 2.5 s is an event of 2.5 s: nothing forgets calls in flight."""
    with running(build.c_program("loop"), "--calls", 0, "--slow", 1, "--slow-max-ms", 2500) as target:
        seen = observe(stack, target, "slow")
    assert counted(seen.ledger) == every_call_stored(1)
    assert_durations(seen.events, seen.truth["slow"])
    assert seen.events[0]["duration_ns"] >= 2_500_000_000


@pytest.mark.parametrize("flags", [(), ("-O0",)], ids=["O2", "O0"])
def test_recursion(stack: Stack, flags: tuple[str, ...]) -> None:
    """Recursion 500 deep is counted at every level, and an outer call takes at least as long as the one inside it."""
    with running(build.c_program("recursion", *flags), "--depth", 500, "--times", 10) as target:
        seen = observe(stack, target, "descend")
    assert seen.truth["wrong"] == 0
    assert counted(seen.ledger) == every_call_stored(5010)
    durations = [event["duration_ns"] for event in seen.events]
    for first in range(0, 5010, 501):
        assert durations[first : first + 501] == sorted(durations[first : first + 501])


def test_longjmp(stack: Stack) -> None:
    """Calls that leave by longjmp entered and never returned; those before and after them are paired rightly."""
    with running(build.c_program("jumps"), "--depth", 100, "--times", 40, "--leave", 4) as target:
        seen = observe(stack, target, "leap")
    calls, returned = seen.truth["calls"], seen.truth["returned"]
    assert (calls, returned) == (4040, 3030)
    ledger = seen.ledger
    assert (ledger["entered"], ledger["returned"], ledger["unreturned"], ledger["stored"]) == (
        calls,
        returned,
        1010,
        returned,
    )
    assert (ledger["too_deep"], ledger["orphan_returns"]) == (0, 0)


@pytest.mark.parametrize(("flags", "cleanups"), [((), 4000), (("-DGUARDED",), 4050)], ids=["plain", "landing-pad"])
def test_threads(stack: Stack, flags: tuple[str, ...], cleanups: int) -> None:
    """Threads that live for 20 calls each are counted, and one that ends by pthread_exit in the probed frame is unwound."""
    with running(build.c_program("threads", *flags), "--threads", 200, "--calls", 20) as target:
        seen = observe(stack, target, "task")
    assert seen.truth == {"calls": 4000, "returned": 3950, "left": 50, "cleaned": cleanups}
    assert counted(seen.ledger, no_return=50) == {**every_call_stored(4000, 3950), "no_return": 50}
    assert len({event["tid"] for event in seen.events}) > 1
    assert {event["pid"] for event in seen.events} == {target.pid}


def test_signals(stack: Stack) -> None:
    """A signal handler that calls the function while the program is inside it is counted apart from it."""
    with running(build.c_program("signals"), "--calls", 20000, "--handled", 300) as target:
        seen = observe(stack, target, "work", events=False)
    truth = seen.truth
    assert truth["wrong"] == 0
    assert truth["handled"] >= 300
    ledger = seen.ledger
    assert (ledger["entered"], ledger["returned"]) == (truth["calls"], truth["returned"])
    assert ledger["stored"] + ledger["ring_lost"] + ledger["queue_dropped"] == truth["returned"]
    assert ledger["orphan_returns"] == 0


@pytest.mark.parametrize("flags", [(), ("-DNOP5",)], ids=["plain", "nop5"])
def test_children_from_their_first_call(stack: Stack, flags: tuple[str, ...]) -> None:
    """Processes forked after the attach are counted from their first call, under their own pid, and their text is clean."""
    with running(build.c_program("forks", *flags), "--children", 40, "--calls", 50) as target:
        seen = observe(stack, target, "work")
    assert counted(seen.ledger) == every_call_stored(2050)
    by_pid = {pid: sum(event["pid"] == pid for event in seen.events) for pid in {event["pid"] for event in seen.events}}
    assert by_pid.pop(target.pid) == 50
    assert sorted(by_pid.values()) == [50] * 40


def test_fork_inside_the_function(stack: Stack) -> None:
    """A child forked inside the function returns from a call it did not enter: an orphan, and nobody's event."""
    with running(build.c_program("forks"), "--children", 0, "--calls", 0, "--inside", 12) as target:
        seen = observe(stack, target, "split")
    assert (seen.truth["split_calls"], seen.truth["split_returned"], seen.truth["split_orphans"]) == (12, 12, 12)
    assert counted(seen.ledger) == {**every_call_stored(12), "orphan_returns": 12}
    assert {event["pid"] for event in seen.events} == {target.pid}


def test_tail_call_always(stack: Stack) -> None:
    """A call that leaves by a jump to another function has returned there, and the event says where it went."""
    with running(build.c_program("tails"), "--calls", 1001) as target:
        seen = observe(stack, target, "always")
    assert seen.truth["wrong"] == 0
    assert counted(seen.ledger) == every_call_stored(1001)
    assert sites(seen.document) == {"entry": 1, "tail": 1}
    assert [event["labels"] for event in seen.events] == [{"exit": "tail_call", "to": "target"}] * 1001


def test_tail_call_sometimes(stack: Stack) -> None:
    """A conditional jump out counts as a return only when it is taken."""
    with running(build.c_program("tails"), "--calls", 1001) as target:
        seen = observe(stack, target, "sometimes")
    assert seen.truth["wrong"] == 0
    assert counted(seen.ledger) == every_call_stored(1001)
    assert [event["labels"] for event in seen.events] == [{}, {"exit": "tail_call", "to": "target"}] * 500 + [{}]


def test_target_of_tail_calls(stack: Stack) -> None:
    """The function that tail calls go to is entered by jumps, and counted like any other."""
    with running(build.c_program("tails"), "--calls", 1001) as target:
        seen = observe(stack, target, "target")
    assert counted(seen.ledger) == every_call_stored(1001 + seen.truth["odd"])


@pytest.mark.parametrize("function", ["careful", "guarded"])
@pytest.mark.parametrize(
    "flags",
    [
        pytest.param((), id="symbol"),
        pytest.param(("-DWITHOUT_SYMBOL",), id="no-symbol"),
        pytest.param(("-DWITHOUT_SYMBOL", "-rdynamic", "-s"), id="stripped"),
    ],
)
def test_cold_parts(stack: Stack, flags: tuple[str, ...], function: str) -> None:
    """Returns in a part of the function that lies elsewhere are seen, whether or not it has a symbol."""
    with running(build.c_program("cold", *flags), "--calls", 1400) as target:
        seen = observe(stack, target, function, events=False)
    assert seen.truth["wrong"] == 0
    assert counted(seen.ledger) == every_call_stored(1400)


@pytest.mark.parametrize(
    "flags", [(), ("-fcf-protection=full",), ("-no-pie",), ("-O0",)], ids=["O2", "endbr64", "no-pie", "O0"]
)
def test_jump_tables(stack: Stack, flags: tuple[str, ...]) -> None:
    """Every return of a switch is seen, and the program computes what it does without Coral."""
    program = build.c_program("switch", *flags)
    with running(program, "--calls", 1200) as alone:
        expected = alone.run()
        assert alone.finish() == 0
    with running(program, "--calls", 1200) as target:
        seen = observe(stack, target, "dispatch", events=False)
    assert seen.truth == expected
    assert counted(seen.ledger) == every_call_stored(1200)


@pytest.mark.parametrize("function", ["shared_work", "libshared.so!shared_work"])
def test_library_of_two_services(stack: Stack, function: str) -> None:
    """A function of a shared library is counted for the service that was named, and not for others that call it."""
    program = build.c_user_of(build.c_library("shared"), "user")
    with running(program, "--calls", 500) as other, running(program, "--calls", 700) as target:
        session_id = stack.cli.attach(target.service, function)["session_id"]
        assert other.run()["wrong"] == 0
        assert target.run()["wrong"] == 0
        assert changed_text(target.pid) != []
        document = stack.cli.stop(session_id)
        assert changed_text(target.pid) == []
        assert changed_text(other.pid) == []
        assert (target.finish(), other.finish()) == (0, 0)
    assert ledger_faults(document["ledger"]) == []
    assert counted(document["ledger"]) == every_call_stored(700)
    assert [instance["pid"] for instance in document["collectors"][0]["instances"]] == [target.pid]
    assert {event["pid"] for event in stack.cli.events(session_id)} == {target.pid}


def test_library_loaded_later(stack: Stack) -> None:
    """A library that no instance has loaded leaves the session pending; once it is mapped, its calls are counted."""
    library = build.c_library("shared")
    with running(build.c_program("late"), "--calls", 500, env={"TRUTH_LIBRARY": str(library)}) as target:
        document = stack.cli.ok(
            "debug", "attach", target.service, "-f", "libshared.so!shared_work", "-d", "30s", "--no-wait", "-o", "json"
        ).json()
        assert document["status"] == "pending"
        assert target.run() == {"loaded": True}
        wait_for_session(stack.colony, session_id=document["session_id"], status="active")
        active = stack.cli.session(document["session_id"])
        assert [instance["status"] for instance in active["collectors"][0]["instances"]] == ["attached"]
        assert target.run() == {"calls": 500, "returned": 500}
        document = stack.cli.stop(document["session_id"])
        assert target.finish() == 0
    assert ledger_faults(document["ledger"]) == []
    assert counted(document["ledger"]) == every_call_stored(500)


def test_file_of_two_programs_at_once(stack: Stack, tmp_path: Path) -> None:
    """Two services that run the same file, or copies of it, do not see each other's calls."""
    program = build.c_program("loop")
    copy = tmp_path / "loop"
    copy.write_bytes(program.read_bytes())
    copy.chmod(0o755)
    service = unique_service("pair")
    with (
        running(program, "--calls", 300) as same_file,
        running(copy, "--calls", 400) as copied,
        running(program, "--calls", 500, service=service) as target,
    ):
        session_id = stack.cli.attach(service, "work")["session_id"]
        for one in (same_file, copied, target):
            assert one.run()["wrong"] == 0
        document = stack.cli.stop(session_id)
        assert [changed_text(one.pid) for one in (same_file, copied, target)] == [[], [], []]
    assert ledger_faults(document["ledger"]) == []
    assert counted(document["ledger"]) == every_call_stored(500)
