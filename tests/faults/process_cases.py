"""What happens to daemons and programs: they are killed, stopped, run out of memory, and come back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from support.stack import free_port
from support.text import changed_text

from faults.cases import Scene, fault, within
from faults.cgroup import oom_kill
from faults.checker import Leaves
from faults.footprint import workers
from faults.stack import steady

_ENDS_S = 30.0


@fault("kill -9 colony", restarts=True)
def kill_colony(scene: Scene) -> None:
    """The colony dies and comes back: the agent kept everything for it."""
    scene.wait_for_stored(1000)
    scene.stack.kill_colony()
    time.sleep(scene.random.uniform(0.1, 1.5))
    scene.stack.start_colony()
    scene.wait_for_stored(1000)


@fault("kill -9 colony thrice", restarts=True)
def kill_colony_thrice(scene: Scene) -> None:
    """The colony dies at three moments of its storing, the later ones soon after it came back."""
    for _ in range(3):
        scene.wait_for_stored()
        time.sleep(scene.random.uniform(0, 0.3))
        scene.stack.kill_colony()
        scene.stack.start_colony()
    scene.wait_for_stored(1000)


@fault("kill -9 agent", leaves=Leaves.UNKNOWN, restarts=True)
def kill_agent(scene: Scene) -> None:
    """The agent dies and comes back: a new collector, and an interval that says what nobody knows."""
    scene.wait_for_stored(1000)
    scene.stack.kill_agent()
    _restored(scene)
    time.sleep(scene.random.uniform(0.1, 1.5))
    scene.stack.start_agent()
    scene.wait_for_stored(1000)


@fault("kill -9 agent, back at another address", leaves=Leaves.UNKNOWN, restarts=True)
def agent_moves(scene: Scene) -> None:
    """The agent dies, and comes back at an address that the colony does not know yet."""
    scene.wait_for_stored(1000)
    scene.stack.kill_agent()
    scene.stack.agent = f"127.0.0.1:{free_port()}"
    scene.stack.start_agent()
    scene.wait_for_stored(1000)


@fault("kill -9 both", leaves=Leaves.UNKNOWN, restarts=True)
def kill_both(scene: Scene) -> None:
    """Colony and agent die at once, and come back in either order."""
    scene.wait_for_stored(1000)
    scene.stack.kill_agent()
    scene.stack.kill_colony()
    if scene.random.random() < 0.5:
        scene.stack.start_agent(wait=False)
        scene.stack.start_colony()
    else:
        scene.stack.start_colony()
        scene.stack.start_agent()
    scene.wait_for_stored(1000)


@fault("SIGTERM agent", leaves=Leaves.UNKNOWN, restarts=True)
def restart_agent(scene: Scene) -> None:
    """The agent is restarted as a service manager does it: it takes its probes back first."""
    scene.wait_for_stored(1000)
    assert scene.stack.agent_daemon is not None
    code = scene.stack.agent_daemon.stop()
    scene.expect(code == 0, f"the agent exited {code}")
    _restored(scene, within_s=0.5)
    scene.stack.start_agent()
    scene.wait_for_stored(1000)


@fault("SIGTERM colony", restarts=True)
def restart_colony(scene: Scene) -> None:
    """The colony is restarted as a service manager does it."""
    scene.wait_for_stored(1000)
    assert scene.stack.colony_daemon is not None
    code = scene.stack.colony_daemon.stop()
    scene.expect(code == 0, f"the colony exited {code}")
    scene.stack.start_colony()
    scene.wait_for_stored(1000)


@fault("kill -9 reader")
def kill_reader(scene: Scene) -> None:
    """The processes that read programs die; the next attach has new ones."""
    template, *_ = workers(scene.stack.agent_pid)
    for pid in workers(template):
        os.kill(pid, signal.SIGKILL)
    scene.wait_for_stored(1000)
    with steady("c", scene.stack.state_dir) as another:
        session_id = scene.attach(another)
        another.go()
        scene.wait_for_stored(1000)
        another.stop()
        scene.stack.cli.stop(session_id)
        scene.check(session_id, Leaves.EXACT)
        del scene.sessions[another.service]


@fault("kill -9 worker", restarts=True)
def kill_worker(scene: Scene) -> None:
    """What readers are forked from dies: sessions go on; a new one works, or the agent ends when it is idle."""
    os.kill(workers(scene.stack.agent_pid)[0], signal.SIGKILL)
    scene.wait_for_stored(2000)
    with steady("c", scene.stack.state_dir) as another:
        try:
            session_id = scene.attach(another)
        except grpc.RpcError as error:
            scene.expect(error.code() is grpc.StatusCode.FAILED_PRECONDITION, f"refused with {error}")
            scene.notes.append("a new session was refused")
            _leaves_by_itself(scene)
        else:
            scene.notes.append("a new session was served")
            scene.stack.cli.stop(session_id)
            del scene.sessions[another.service]


def _leaves_by_itself(scene: Scene) -> None:
    """Ends the sessions, and waits for the agent's own end; starts it again."""
    for program in scene.programs:
        scene.rates.append(program.stop())
        scene.stack.cli.stop(scene.sessions[program.service])
    agent = scene.stack.agent_daemon
    assert agent is not None
    if not within(_ENDS_S, lambda: agent.process.poll() is not None):
        scene.faults.append(f"an agent that can read no program goes on for {_ENDS_S} s")
        agent.stop()
    scene.stack.start_agent()


@fault("SIGSTOP colony")
def stop_colony(scene: Scene) -> None:
    """The colony stands still for seconds: the agent waits for it."""
    with _stopped(scene, scene.stack.colony_pid):
        time.sleep(scene.random.uniform(1, 5))


@fault("SIGSTOP agent")
def stop_agent(scene: Scene) -> None:
    """The agent stands still: the ring holds what is not drained, 8,000 calls a second for some seconds."""
    with _stopped(scene, scene.stack.agent_pid):
        time.sleep(scene.random.uniform(1, 5))


@fault("SIGSTOP agent, moments")
def stop_agent_for_moments(scene: Scene) -> None:
    """The agent stands still three times for less than a second."""
    for _ in range(3):
        with _stopped(scene, scene.stack.agent_pid, settle=False):
            time.sleep(scene.random.uniform(0.1, 0.5))
    scene.wait_for_stored(1000)


@fault("SIGSTOP colony, 20 s")
def stop_colony_long(scene: Scene) -> None:
    """The colony stands still for so long that its calls time out."""
    with _stopped(scene, scene.stack.colony_pid):
        time.sleep(20)


@fault("SIGSTOP agent, 20 s", leaves=Leaves.LOSS)
def stop_agent_long(scene: Scene) -> None:
    """The agent stands still for so long that the colony takes it for offline, and the ring may run full: that is counted."""
    with _stopped(scene, scene.stack.agent_pid):
        time.sleep(20)


@fault("SIGSTOP worker")
def stop_worker(scene: Scene) -> None:
    """What reads programs stands still: sessions that run do not need it."""
    with _stopped(scene, *workers(scene.stack.agent_pid)):
        time.sleep(scene.random.uniform(1, 4))


@fault("SIGSTOP target")
def stop_target(scene: Scene) -> None:
    """Both programs stand still, and then make up for it at full speed."""
    with _stopped(scene, *(program.pid for program in scene.programs)):
        time.sleep(scene.random.uniform(1, 4))


@fault("SIGSTOP both daemons in turns")
def stop_in_turns(scene: Scene) -> None:
    """Now the one stands still, now the other, at moments that have nothing to do with each other."""
    for _ in range(6):
        with _stopped(scene, scene.random.choice((scene.stack.agent_pid, scene.stack.colony_pid)), settle=False):
            time.sleep(scene.random.uniform(0.05, 0.8))
        time.sleep(scene.random.uniform(0, 0.3))
    scene.wait_for_stored(1000)


@fault("OOM kill colony", restarts=True)
def oom_colony(scene: Scene) -> None:
    """The kernel kills the colony for want of memory."""
    scene.wait_for_stored(1000)
    assert scene.stack.colony_daemon is not None
    scene.notes.append(f"killed after {oom_kill(scene.stack.colony_pid):.2f} s")
    scene.stack.colony_daemon.process.wait(20)
    scene.stack.start_colony()
    scene.wait_for_stored(1000)


@fault("OOM kill agent", leaves=Leaves.UNKNOWN, restarts=True)
def oom_agent(scene: Scene) -> None:
    """The kernel kills the agent for want of memory."""
    scene.wait_for_stored(1000)
    assert scene.stack.agent_daemon is not None
    scene.notes.append(f"killed after {oom_kill(scene.stack.agent_pid):.2f} s")
    scene.stack.agent_daemon.process.wait(20)
    _restored(scene)
    scene.stack.start_agent()
    scene.wait_for_stored(1000)


@fault("kill -9 target")
def kill_target(scene: Scene) -> None:
    """Both programs die in the middle of their calls: the last one is counted, and the instance says how it ended."""
    scene.wait_for_stored(2000)
    for program in scene.programs:
        program.target.kill()
    _ended_by(scene, signal.SIGKILL)


@fault("OOM kill target", kinds=("c",))
def oom_target(scene: Scene) -> None:
    """The kernel kills the program for want of memory."""
    scene.wait_for_stored(2000)
    for program in scene.programs:
        scene.notes.append(f"killed after {oom_kill(program.pid):.2f} s")
        program.target.process.wait(20)
    _ended_by(scene, signal.SIGKILL)


def _ended_by(scene: Scene, number: int) -> None:
    """Waits until each session says of its one instance by which signal it ended."""
    for session_id in scene.sessions.values():

        def told(session_id: str = session_id) -> bool:
            (instance,) = scene.session(session_id).collectors[0].instances
            return instance.status == "exited" and instance.HasField("exit_status") and instance.exit_status == -number

        scene.expect(within(10, told), f"session {session_id} does not say that its instance ended with signal {number}")


@contextmanager
def _stopped(scene: Scene, *pids: int, settle: bool = True) -> Iterator[None]:
    """Processes that stand still meanwhile."""
    if settle:
        scene.wait_for_stored(1000)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    if settle:
        scene.wait_for_stored(1000)


def _restored(scene: Scene, within_s: float = 5) -> None:
    """Waits until the programs' code is as it was; notes a fault when that takes long."""
    for program in scene.programs:
        restored = within(within_s, lambda pid=program.pid: not changed_text(pid))
        scene.expect(restored, f"the code of {program.function} is still changed {within_s} s after the agent's end")
