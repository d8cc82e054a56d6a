"""What happens to clocks: the wall clock is set on either side, a host sleeps."""

from __future__ import annotations

import os
import signal
import time
from datetime import datetime

from support.text import changed_text

from faults.cases import Scene, fault, wait_for_end
from faults.checker import Leaves
from faults.settings import Preloads, preloaded
from faults.stack import steady

_JUMPS_S = (-7200.0, -3600.0, -90.0, 90.0, 3600.0, 86_400.0)


def _clocks(scene: Scene) -> Preloads:
    preloads = scene.stack.setting
    assert isinstance(preloads, Preloads)
    return preloads


@fault("colony's clock jumps", setting=preloaded)
def colony_jumps(scene: Scene) -> None:
    """The colony's wall clock is set, by hours, and back."""
    _jump(scene, scene.random.choice(_JUMPS_S), 0)


@fault("agent's clock jumps", setting=preloaded)
def agent_jumps(scene: Scene) -> None:
    """The agent's wall clock is set, by hours, and back."""
    _jump(scene, 0, scene.random.choice(_JUMPS_S))


@fault("both clocks jump apart", setting=preloaded)
def both_jump(scene: Scene) -> None:
    """The wall clocks are set in opposite directions."""
    ahead_s = scene.random.choice(_JUMPS_S)
    _jump(scene, ahead_s, -ahead_s)


@fault("colony restarted with another clock", setting=preloaded, restarts=True)
def restart_jumps(scene: Scene) -> None:
    """The colony is killed, and comes back with its wall clock set by hours: sessions go on until their agents end them."""
    scene.wait_for_stored(1000)
    scene.stack.kill_colony()
    _clocks(scene).colony.set_wall(scene.random.choice(_JUMPS_S))
    try:
        scene.stack.start_colony()
        scene.wait_for_stored(20_000)
        _still_active(scene)
    finally:
        _clocks(scene).colony.set_wall(0)
    scene.wait_for_stored(1000)


def _jump(scene: Scene, colony_s: float, agent_s: float) -> None:
    scene.wait_for_stored(1000)
    clocks = _clocks(scene)
    scene.notes.append(f"colony {colony_s:+.0f} s, agent {agent_s:+.0f} s")
    try:
        clocks.colony.set_wall(colony_s)
        clocks.agent.set_wall(agent_s)
        scene.wait_for_stored(20_000)
        _still_active(scene)
        _lasts(scene, 3)
    finally:
        clocks.colony.set_wall(0)
        clocks.agent.set_wall(0)
    scene.wait_for_stored(1000)
    verified = scene.stack.cli.run("audit", "verify")
    scene.expect(verified.exit_code == 0, f"the audit log is not what was written: {verified.stdout}{verified.stderr}")


def _lasts(scene: Scene, seconds: float) -> None:
    """A session that begins under such a clock lasts as long as was asked for, to the second."""
    program = scene.programs[0]
    began = time.monotonic()
    outcome = scene.stack.cli.run(
        "debug", "attach", program.service, "-f", program.function, "-d", f"{seconds:g}s", "-o", "json"
    )
    took_s = time.monotonic() - began
    scene.expect(outcome.exit_code == 0, f"an attach exits {outcome.exit_code}: {outcome.stderr[-300:]}")
    if outcome.exit_code == 0:
        document = outcome.json()
        scene.expect(
            (document["status"], document["reason_code"]) == ("expired", "deadline"),
            f"it ended as {document['status']}: {document['reason']}",
        )
        lasted_s = _seconds(document["ended_at"]) - _seconds(document["started_at"])
        scene.expect(seconds <= lasted_s <= seconds + 2, f"a session of {seconds} s lasted {lasted_s} s by its own times")
    scene.notes.append(f"an attach for {seconds:g} s took {took_s:.1f} s")
    scene.expect(seconds <= took_s <= seconds + 15, f"an attach for {seconds} s took {took_s:.1f} s")


def _still_active(scene: Scene) -> None:
    for session_id in scene.sessions.values():
        session = scene.session(session_id)
        scene.expect(session.status == "active", f"a session is {session.status}: {session.reason}")


@fault("host suspended", alone=True, setting=preloaded, leaves=Leaves.LOSS, soak=False)
def suspended(scene: Scene) -> None:
    """The host sleeps past the deadline: once it wakes up, the session ends at once, with every call until then."""
    with steady("c", scene.stack.state_dir) as program:
        session_id = scene.attach(program, seconds=60)
        program.go()
        scene.wait_for_stored(4000)
        pids = [program.pid, scene.stack.agent_pid]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(7)  # long enough for the colony, on another host, to take the agent for offline
        # What the machine's clocks do while it sleeps: those of the wall and of the boot go on. The stamps of the kernel,
        # which cannot be made to sleep here, did for these seconds alone.
        _clocks(scene).agent.set_boot(3600)
        _clocks(scene).agent.set_wall(3600)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        woke = time.monotonic()
        try:
            while changed_text(program.pid) and time.monotonic() < woke + 10:
                time.sleep(0.02)
            late_s = time.monotonic() - woke
            wait_for_end(scene, session_id)
        finally:
            _clocks(scene).agent.set_boot(0)
            _clocks(scene).agent.set_wall(0)
        scene.rates.append(program.stop())
        scene.notes.append(f"detached {late_s:.2f} s after it woke up")
        scene.expect(late_s <= 1, f"it was detached {late_s:.1f} s after it woke up")
        document = scene.check(session_id, Leaves.LOSS)
        scene.expect(document["status"] == "expired", f"it is {document['status']}: {document['reason']}")


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
