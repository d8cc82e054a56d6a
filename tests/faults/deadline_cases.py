"""Deadlines: they are the agent's own, and hold within a second whatever happens to the rest."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from support.text import changed_text

from faults.cases import Scene, fault, wait_for_end
from faults.checker import Leaves, Truth
from faults.links import probed_paths
from faults.stack import RATE, Steady, steady

_PROGRAMS = 16
_CALLERS = 8
_SOONEST_S = 8.0
_LATE_S = 1.0
_AT_MOST_S = 15.0
_LOOK_S = 0.01


@fault("deadlines", alone=True)
def deadlines(scene: Scene) -> None:
    """16 sessions with deadlines of 8 to 10 s: each program has its code back within a second of its deadline."""
    _expire(scene)


@fault("deadlines without a colony", alone=True, restarts=True)
def deadlines_without_a_colony(scene: Scene) -> None:
    """The same with the colony dead; the one that comes back ends the sessions as expired, with every event."""
    _expire(scene, colony=False)


@fault("deadlines of a stopped agent", alone=True)
def deadlines_of_a_stopped_agent(scene: Scene) -> None:
    """An agent that stood still beyond the deadlines detaches at once when it goes on."""
    _expire(scene, stopped=True)


def _expire(scene: Scene, *, colony: bool = True, stopped: bool = False) -> None:
    stack = scene.stack
    with ExitStack() as exits:
        rate = -(-RATE // _PROGRAMS)
        programs = [exits.enter_context(steady("c", stack.state_dir, rate=rate, own_file=True)) for _ in range(_PROGRAMS)]
        scene.programs = programs
        with ThreadPoolExecutor(_CALLERS) as pool:
            durations = [scene.random.uniform(_SOONEST_S, _SOONEST_S + 2) for _ in programs]
            ids = list(pool.map(lambda program, seconds: scene.attach(program, seconds=seconds), programs, durations))
        due = {
            program: scene.session(session_id).expires_at.ToNanoseconds() / 1e9
            for program, session_id in zip(programs, ids, strict=True)
        }
        for program in programs:
            program.go()
        if not colony:
            stack.kill_colony()
        if min(due.values()) < time.time():
            scene.notes.append("this machine is too busy: deadlines had passed before all sessions had begun")
        if stopped:
            os.kill(stack.agent_pid, signal.SIGSTOP)
            time.sleep(max(0.0, max(due.values()) - time.time()) + 0.5)
            os.kill(stack.agent_pid, signal.SIGCONT)
            due = dict.fromkeys(due, time.time())
        late = _restored(due)
        scene.rates.append(sum(program.stop() for program in programs))
        if not colony:
            stack.start_colony()
        never = len(due) - len(late)
        scene.expect(not never, f"{never} programs still have their probes {_AT_MOST_S} s after the deadline")
        worst = max(late.values(), default=0.0)
        scene.expect(worst <= _LATE_S, f"a program had its code back {worst:.2f} s after the deadline")
        early = min(late.values(), default=0.0)
        scene.expect(stopped or early >= -0.05, f"a program had its code back {-early:.2f} s before the deadline")
        middle = sorted(late.values())[len(late) // 2] if late else 0.0
        scene.notes.append(f"{len(late)} sessions ended {middle * 1e3:.0f} ms late in the median, {worst * 1e3:.0f} at most")
        for program, session_id in zip(programs, ids, strict=True):
            wait_for_end(scene, session_id)
            calls, returned, _ = program.counted()
            truth = Truth(calls=calls, returned=returned, rate=rate, during=False)
            document = scene.check(session_id, Leaves.EXACT, truth)
            how = (document["status"], document["reason_code"])
            scene.expect(how == ("expired", "deadline"), f"session {session_id} is {how}")


def _restored(due: dict[Steady, float]) -> dict[Steady, float]:
    """Looks until the code of each program is as it was; returns by how many seconds each was late.

    Args:
        due: By program, the wall-clock time of its deadline.
    """
    late: dict[Steady, float] = {}
    last = max(due.values()) + _AT_MOST_S
    while len(late) < len(due) and time.time() < last:
        probed = set(probed_paths())  # which is quick; the code itself is read only once the kernel holds no link any more
        for program, at in due.items():
            if program not in late and str(program.program) not in probed and not changed_text(program.pid):
                late[program] = time.time() - at
        time.sleep(_LOOK_S)
    return late
