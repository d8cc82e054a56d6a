"""What happens to many: sessions at once and in a row, programs that fork and exec, hosts that come late."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
from support import build, rpc
from support.launch import living
from support.target import running

from faults.cases import Scene, fault, wait_for_end, within
from faults.checker import Leaves, Truth, text_faults
from faults.stack import RATE, Steady, steady

_CALLERS = 8
_AGENTS = 4
_PER_AGENT = 50
_SHORT = 1000
_FORKED = 500
_EXECS = 300
_ROUNDS = 6


@fault("200 sessions at once", alone=True, own_stack=True, soak=False)
def sessions_at_once(scene: Scene) -> None:
    """200 sessions on four agents over 50 programs, which make 4,100 calls a second together: each is exact."""
    at_once(scene, agents=_AGENTS, programs=_PER_AGENT)


@fault("more sessions than an agent takes", alone=True, soak=False)
def too_many_sessions(scene: Scene) -> None:
    """80 attaches at once to an agent that runs 64: who waits in vain is told why; those that run are exact."""
    stack = scene.stack
    with steady("c", stack.state_dir, rate=RATE) as program:
        scene.programs = [program]

        def one(_: int) -> str:
            try:
                return str(rpc.attach(stack.colony, program.service, program.function, 60).session_id)
            except grpc.RpcError as error:
                return f"{error.code().name}: {error.details()}"

        with ThreadPoolExecutor(80) as pool:
            answers = list(pool.map(one, range(80)))
        taken = [answer for answer in answers if " " not in answer]
        refused = [answer for answer in answers if " " in answer]
        scene.expect(len(taken) == 64, f"{len(taken)} of 80 run")
        wrong = [answer for answer in refused if not answer.startswith("RESOURCE_EXHAUSTED")]
        scene.expect(not wrong, f"refused otherwise: {wrong[:2]}")
        program.go()
        time.sleep(3)
        scene.rates.append(program.stop())
        calls, returned, _ = program.counted()
        _stop_all(scene, taken)
        for session_id in taken:
            scene.check(session_id, Leaves.LOSS, Truth(calls=calls, returned=returned, rate=RATE))
        scene.notes.append(f"{len(taken)} ran, {len(refused)} were refused; {calls} calls each seen {len(taken)} times")
        scene.faults += text_faults([program.pid])


@fault("1,000 short sessions", alone=True, soak=False)
def short_sessions(scene: Scene) -> None:
    """1,000 sessions in a row over a program that never stops, each begun and ended at once."""
    short(scene, count=_SHORT)


@fault("20 short sessions", alone=True)
def few_short_sessions(scene: Scene) -> None:
    """As 1,000 of them, for a soak and for the tests."""
    short(scene, count=20)


@fault("500 forked workers", kinds=("c",))
def forked_workers(scene: Scene) -> None:
    """A program forks 500 workers that call from their first moment on: every call of each is counted."""
    with running(build.c_program("forks"), "--children", _FORKED, "--calls", 20) as target:
        session_id = str(rpc.attach(scene.stack.colony, target.service, "work", 120).session_id)
        truth = target.run()
        scene.stack.cli.stop(session_id)
        target.finish()
        counted = Truth(calls=truth["calls"], returned=truth["returned"], rate=RATE)
        document = scene.check(session_id, Leaves.EXACT, counted)
    instances = document["collectors"][0]["instances"]
    ended = [one for one in instances if one["status"] == "exited" and one["exit_status"] == 0]
    scene.expect(len(ended) == _FORKED, f"{len(ended)} of {_FORKED} workers are said to have ended, with their exit status")


@fault("exec in a loop", kinds=("c",))
def execs_in_a_loop(scene: Scene) -> None:
    """A program that executes itself 300 times: what is counted are calls that were made, and nothing is left of it."""
    with living() as target:
        session_id = str(rpc.attach(scene.stack.colony, target.service, "work", 120).session_id)
        target.tell(f"chain {_EXECS}")
        time.sleep(2)
        target.tell("exit 0")
        scene.stack.cli.stop(session_id)
        truth = Truth(calls=2 * (_EXECS + 1), returned=2 * (_EXECS + 1), rate=RATE, during=False)
        scene.check(session_id, Leaves.EXACT, truth)


@fault("late host", kinds=("c",))
def late_host(scene: Scene) -> None:
    """An agent that comes while the session runs takes part in it, and its collector is exact for itself."""
    (session_id,) = scene.sessions.values()
    with scene.stack.another_agent("late") as late:
        came = within(20, lambda: {one.agent_id for one in scene.session(session_id).collectors} >= {"late"})
        scene.expect(came, "the late host is not part of the session after 20 s")
        scene.wait_for_stored(2000)
        # As its own programs end, so that both collectors have counted the same calls from here to there.
        scene.rates.append(scene.programs[0].stop())
        scene.stack.cli.stop(session_id)
        wait_for_end(scene, session_id)
        document = scene.check(session_id, Leaves.LOSS)
        first, second = (collector["ledger"] for collector in document["collectors"])
        calls, _, _ = scene.programs[0].counted()
        scene.expect(first["entered"] == calls, f"the first host counted {first['entered']} of {calls} calls")
        scene.expect(0 < second["entered"] < calls, f"the late host counted {second['entered']} of {calls} calls")
        scene.notes.append(f"{calls} calls; {first['entered']} and, late, {second['entered']} entered")
        scene.sessions.clear()
        scene.programs.clear()
        scene.expect(late.process.poll() is None, "the late agent ended")


@fault("colony killed while it attaches", alone=True, restarts=True)
def killed_while_attaching(scene: Scene) -> None:
    """At moments of an attach: whatever comes of the session ends, and no probe outlives it."""
    stack = scene.stack
    with steady("c", stack.state_dir) as program, ThreadPoolExecutor(1) as pool:
        scene.programs = [program]
        program.go()
        for number in range(_ROUNDS):
            asked = pool.submit(_attach_or_fail, stack.colony, program)
            time.sleep(0.03 * number * scene.random.random())
            stack.kill_colony()
            stack.start_colony()
            asked.result(30)
            rpc.wait_for_agent(stack.colony, stack.agent_id, "online")
            for session in rpc.sessions(stack.colony, service_name=program.service):
                if session.status in ("pending", "active"):
                    stack.cli.run("debug", "session", "stop", session.session_id)
                    wait_for_end(scene, session.session_id)
            gone = within(15, lambda: not text_faults([program.pid]))
            scene.expect(gone, f"15 s after attach {number} was interrupted, the program still has its probes")
        scene.rates.append(program.stop())
        found = rpc.sessions(stack.colony, service_name=program.service)
        scene.notes.append(f"{len(found)} sessions of {_ROUNDS} attaches: {sorted(one.status for one in found)}")


@fault("colony killed while it detaches", alone=True, restarts=True)
def killed_while_detaching(scene: Scene) -> None:
    """At moments of a detach: the session ends, with every call in its ledger."""
    stack = scene.stack
    with ThreadPoolExecutor(1) as pool:
        for number in range(_ROUNDS):
            with steady("c", stack.state_dir) as program:
                session_id = scene.attach(program)
                program.go()
                scene.wait_for_stored(500)
                scene.rates.append(program.stop())
                stopping = pool.submit(stack.cli.run, "debug", "session", "stop", session_id)
                time.sleep(0.2 + 0.1 * number * scene.random.random())  # the command needs this long to begin
                stack.kill_colony()
                stack.start_colony()
                stopping.result(60)
                stack.cli.run("debug", "session", "stop", session_id)
                wait_for_end(scene, session_id)
                calls, returned, _ = program.counted()
                scene.check(session_id, Leaves.EXACT, Truth(calls=calls, returned=returned, rate=RATE))
                scene.faults += text_faults([program.pid])
                del scene.sessions[program.service]


def at_once(scene: Scene, *, agents: int, programs: int) -> None:
    """A session of every agent over every program, all at once.

    Args:
        scene: With one agent; further ones are started.
        agents: How many.
        programs: How many, which share the rate.
    """
    stack = scene.stack
    with ExitStack() as exits:
        ids = [stack.agent_id, *(f"agent-{number}" for number in range(1, agents))]
        for agent_id in ids[1:]:
            exits.enter_context(stack.another_agent(agent_id))
        rate = -(-RATE // programs)
        started = [exits.enter_context(steady("c", stack.state_dir, rate=rate)) for _ in range(programs)]
        scene.programs = started
        wanted = list(itertools.product(started, ids))
        began = time.monotonic()
        with ThreadPoolExecutor(_CALLERS) as pool:
            sessions = list(
                pool.map(
                    lambda one: str(
                        rpc.attach(stack.colony, one[0].service, one[0].function, 300, agent_id=one[1]).session_id
                    ),
                    wanted,
                )
            )
        attached_s = time.monotonic() - began
        active = [one for one in rpc.sessions(stack.colony, page_size=1000) if one.status == "active"]
        scene.expect(len(active) >= len(wanted), f"{len(active)} of {len(wanted)} sessions are active at once")
        for program in started:
            program.go()
        time.sleep(5)
        scene.rates.append(sum(program.stop() for program in started))
        _stop_all(scene, sessions)
        for (program, _), session_id in zip(wanted, sessions, strict=True):
            calls, returned, _ = program.counted()
            scene.check(session_id, Leaves.EXACT, Truth(calls=calls, returned=returned, rate=rate))
        scene.faults += text_faults(program.pid for program in started)
        scene.notes.append(f"{len(wanted)} sessions on {agents} agents, attached in {attached_s:.1f} s by {_CALLERS} callers")


def short(scene: Scene, *, count: int) -> None:
    """Sessions in a row, each ended as soon as it is active."""
    stack = scene.stack
    with steady("c", stack.state_dir) as program:
        scene.programs = [program]
        program.go()
        began, sessions = time.monotonic(), []
        for _ in range(count):
            session_id = rpc.attach(stack.colony, program.service, program.function, 60).session_id
            _detach(stack.colony, session_id)
            sessions.append(session_id)
        took_s = time.monotonic() - began
        scene.rates.append(program.stop())
        scene.faults += text_faults([program.pid])
        calls, _, _ = program.counted()
        for session_id in (sessions[0], sessions[-1], *scene.random.sample(sessions, min(5, count))):
            wait_for_end(scene, session_id)
            scene.check(session_id, Leaves.LOSS, Truth(calls=calls, returned=calls, rate=RATE, during=False))
        identifiers = ", ".join(f"'{one}'" for one in sessions)
        statement = f"SELECT status, count(*) AS n FROM debug_sessions WHERE session_id IN ({identifiers}) GROUP BY status"
        rows = stack.cli.query(statement)
        scene.expect(rows == [{"status": "detached", "n": count}], f"{count} sessions are {rows}")
        scene.notes.append(f"{count} sessions in {took_s:.1f} s")


def _attach_or_fail(colony: str, program: Steady) -> str:
    try:
        return str(rpc.attach(colony, program.service, program.function, 60).session_id)
    except grpc.RpcError as error:
        return str(error.code())


def _detach(colony: str, session_id: str) -> None:
    rpc.colony(colony, "DetachUprobe", rpc.debug_pb2.DetachUprobeRequest(session_id=session_id))


def _stop_all(scene: Scene, sessions: list[str]) -> None:
    with ThreadPoolExecutor(_CALLERS) as pool:
        list(pool.map(lambda one: _detach(scene.stack.colony, one), sessions))
    for session_id in sessions:
        wait_for_end(scene, session_id)
