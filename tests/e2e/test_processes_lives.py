"""What processes do in their lives while they are probed: children, other programs, libraries, standing still."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support import build, rpc
from support.launch import Living, living
from support.observe import counted, every_call_stored, ledger_faults
from support.servers import wait_until
from support.stack import Stack
from support.text import changed_text

pytestmark = pytest.mark.kernel


def _instances(stack: Stack, session_id: str) -> list[tuple[int, str]]:
    (session,) = rpc.sessions(stack.colony, session_id=session_id)
    return [(one.pid, one.status) for one in session.collectors[0].instances]


def _stopped(stack: Stack, session_id: str, target: Living) -> dict[str, Any]:
    """Ends a session: the ledger is whole, and the process's text is as it was."""
    document = stack.cli.stop(session_id)
    assert changed_text(target.pid) == []
    assert ledger_faults(document["ledger"]) == []
    return document


def test_children_of_every_kind(stack: Stack) -> None:
    """Calls of children that share memory, of vfork, of threads and of 500 forked workers are counted from the first."""
    with living() as target:
        session_id = rpc.attach(stack.colony, target.service, "work").session_id
        target.do("vfork 20 5")
        target.do("share 20 5")
        target.do("threads 20 5")
        target.do("fork 500 4")
        assert target.do("spawn 10 /bin/false")["codes"] == 10
        truth = target.do("work 3")
        assert truth == {"calls": 2303, "returned": 2303, "wrong": 0, "codes": 10}
        document = _stopped(stack, session_id, target)
        assert target.exit(5) == 5
    assert counted(document["ledger"]) == every_call_stored(2303)
    by_pid = Counter(event["pid"] for event in stack.cli.events(session_id))
    assert by_pid.pop(target.pid) == 103
    assert Counter(by_pid.values()) == {5: 40, 4: 500}


@pytest.mark.parametrize("before", [(), ("setarch", "--addr-no-randomize")], ids=["", "no-aslr"])
def test_exec_into_another_program(stack: Stack, tmp_path: Path, before: tuple[str, ...]) -> None:
    """A process that runs the same program again, and then another one, is counted in each; the first ones have ended."""
    other = tmp_path / "other"
    other.write_bytes(build.c_program("lives", "-O1").read_bytes())
    other.chmod(0o755)
    with living(before=before) as target:
        session_id = rpc.attach(stack.colony, target.service, "work").session_id
        assert target.do("work 10")["calls"] == 10
        for number, file in enumerate(("/proc/self/exe", str(other)), start=1):
            target.tell(f"exec {file}")
            target.line()
            expected = [(target.pid, "exited")] * number + [(target.pid, "attached")]
            wait_until("the program that runs now is attached", lambda e=expected: _instances(stack, session_id) == e)
            assert changed_text(target.pid) != []
            assert target.do("work 20") == {"calls": 20, "returned": 20, "wrong": 0, "codes": 0}
        document = _stopped(stack, session_id, target)
        assert target.exit(4) == 4
    assert counted(document["ledger"]) == every_call_stored(50)


def test_execs_in_a_loop(stack: Stack) -> None:
    """A process that execs 300 times, and processes that live for a moment, go their way; what was counted is whole."""
    with living() as target, living(service=target.service) as steady:
        session_id = rpc.attach(stack.colony, target.service, "work").session_id
        target.tell("chain 300")
        assert steady.do("work 100")["calls"] == 100
        assert target.line() == {"ready": True, "pid": target.pid}
        assert target.do("work 7") == {"calls": 7, "returned": 7, "wrong": 0, "codes": 0}
        document = _stopped(stack, session_id, target)
        assert (target.exit(3), steady.exit(2)) == (3, 2)
    assert 102 <= document["ledger"]["entered"] <= 100 + 7 + 2 * 301
    assert document["ledger"]["orphan_returns"] == 0
    calls = Counter(event["pid"] for event in stack.cli.events(session_id))
    assert calls[steady.pid] == 100


def test_library_that_comes_and_goes(stack: Stack, tmp_path: Path) -> None:
    """A library that is unloaded and loaded again is counted in each life, also when its file was replaced meanwhile."""
    library = tmp_path / "libshared.so"
    library.write_bytes(build.c_library("shared").read_bytes())
    with living() as target:
        target.do(f"load {library}")
        session_id = rpc.attach(stack.colony, target.service, "libshared.so!shared_work").session_id
        target.do("call 100")
        target.do("unload")
        target.do(f"load {library}")
        target.do("call 100")
        target.do("unload")
        new = tmp_path / "new"
        new.write_bytes(library.read_bytes())
        new.rename(library)
        target.do(f"load {library}")
        wait_until("the new file is probed", lambda: changed_text(target.pid) != [])
        assert target.do("call 100") == {"calls": 300, "returned": 300, "wrong": 0, "codes": 0}
        document = _stopped(stack, session_id, target)
        assert target.exit(1) == 1
    assert counted(document["ledger"]) == every_call_stored(300)


def test_processes_that_stand_still(stack: Stack, tmp_path: Path) -> None:
    """A stopped and a frozen process are attached, detached and attached again while they stand still, and go on unharmed."""
    freezer = Path("/sys/fs/cgroup/freezer") / f"coral-test-{time.time_ns()}"
    freezer.mkdir()
    try:
        with living() as stopped, living(service=stopped.service) as frozen:
            (freezer / "cgroup.procs").write_text(str(frozen.pid))
            (freezer / "freezer.state").write_text("FROZEN")
            stopped.process.send_signal(signal.SIGSTOP)
            first = rpc.attach(stack.colony, stopped.service, "work").session_id
            assert sorted(_instances(stack, first)) == sorted([(stopped.pid, "attached"), (frozen.pid, "attached")])
            assert [changed_text(one.pid) != [] for one in (stopped, frozen)] == [True, True]
            assert counted(stack.cli.stop(first)["ledger"]) == {}
            assert [changed_text(one.pid) for one in (stopped, frozen)] == [[], []]
            second = rpc.attach(stack.colony, stopped.service, "work").session_id
            stopped.process.send_signal(signal.SIGCONT)
            (freezer / "freezer.state").write_text("THAWED")
            assert stopped.do("work 50")["wrong"] == 0
            assert frozen.do("work 70")["wrong"] == 0
            document = stack.cli.stop(second)
            assert [changed_text(one.pid) for one in (stopped, frozen)] == [[], []]
            assert (stopped.exit(2), frozen.exit(3)) == (2, 3)
    finally:
        freezer.rmdir()
    assert counted(document["ledger"]) == every_call_stored(120)
