"""What happens to processes: they are killed, stopped, come back."""

from __future__ import annotations

import os
import signal
import time

from faults.cases import Scene, fault
from faults.checker import Leaves


@fault("kill -9 colony", restarts=True)
def kill_colony(scene: Scene) -> None:
    """The colony dies and comes back: the agent kept everything for it."""
    scene.wait_for_stored(1000)
    scene.stack.kill_colony()
    time.sleep(scene.random.uniform(0.1, 1.5))
    scene.stack.start_colony()
    scene.wait_for_stored(1000)


@fault("kill -9 agent", leaves=Leaves.UNKNOWN, restarts=True)
def kill_agent(scene: Scene) -> None:
    """The agent dies and comes back: a new collector, and an interval that says what nobody knows."""
    scene.wait_for_stored(1000)
    scene.stack.kill_agent()
    time.sleep(scene.random.uniform(0.1, 1.5))
    scene.stack.start_agent()
    scene.wait_for_stored(1000)


@fault("SIGSTOP colony")
def stop_colony(scene: Scene) -> None:
    """The colony stands still for seconds: the agent waits for it."""
    _stopped(scene, scene.stack.colony_pid)


@fault("SIGSTOP agent")
def stop_agent(scene: Scene) -> None:
    """The agent stands still: the ring holds what is not drained, 8,000 calls a second for some seconds."""
    _stopped(scene, scene.stack.agent_pid)


@fault("SIGSTOP target")
def stop_target(scene: Scene) -> None:
    """Both programs stand still, and then make up for it at full speed."""
    for program in scene.programs:
        os.kill(program.pid, signal.SIGSTOP)
    time.sleep(scene.random.uniform(1, 4))
    for program in scene.programs:
        os.kill(program.pid, signal.SIGCONT)
    scene.wait_for_stored(1000)


def _stopped(scene: Scene, pid: int) -> None:
    scene.wait_for_stored(1000)
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(scene.random.uniform(1, 5))
    finally:
        os.kill(pid, signal.SIGCONT)
    scene.wait_for_stored(1000)
