"""What happens to the links between colony, agent and command: cut, black-holed, narrow, forgotten."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

from support import rpc
from support.cli import Cli

from faults.cases import Scene, fault
from faults.checker import Leaves
from faults.link import link_to
from faults.settings import Links, linked, linked_with_a_small_window

_SOON_S = 15.0
"""How soon after a link is well again everything has to go on: pauses between attempts grow to 2 s, to register to 5 s."""


def _links(scene: Scene) -> Links:
    links = scene.stack.setting
    assert isinstance(links, Links)
    return links


@fault("link cut", setting=linked)
def cut(scene: Scene) -> None:
    """Both ways between the daemons are cut and refused for seconds: the agent keeps what it cannot send."""
    _cut(scene, scene.random.uniform(1, 6))


@fault("link cut, longer than the window holds", leaves=Leaves.LOSS, setting=linked_with_a_small_window)
def cut_for_long(scene: Scene) -> None:
    """The link is cut until the agent has had to drop events: each of them is in the ledger."""
    _cut(scene, 8)
    dropped = sum(int(scene.session(one).ledger.queue_dropped) for one in scene.sessions.values())
    scene.expect(dropped > 0, "nothing was dropped, although the window holds seconds and the link was cut for 8")
    scene.notes.append(f"{dropped} dropped")


def _cut(scene: Scene, seconds: float) -> None:
    scene.wait_for_stored(1000)
    for link in _links(scene).both():
        link.cut()
    time.sleep(seconds)
    _go_on(scene)


@fault("link cut again and again", setting=linked)
def cut_often(scene: Scene) -> None:
    """Connections are reset twenty times, at any moment of a batch."""
    scene.wait_for_stored(1000)
    for _ in range(20):
        for link in _links(scene).both():
            link.reset()
        time.sleep(scene.random.uniform(0, 0.5))
    _go_on(scene)


@fault("black hole", setting=linked)
def black_hole(scene: Scene) -> None:
    """What both send is swallowed without a word, long enough for the agent to count as offline; then it arrives."""
    scene.wait_for_stored(1000)
    for link in _links(scene).both():
        link.black_hole()
    rpc.wait_for_agent(scene.stack.colony, scene.stack.agent_id, "offline")
    time.sleep(scene.random.uniform(0, 4))
    _go_on(scene)


@fault("connections forgotten", setting=linked)
def forgotten(scene: Scene) -> None:
    """A firewall between them is restarted: what is sent on the connections that there were is lost, new ones work."""
    scene.wait_for_stored(1000)
    for link in _links(scene).both():
        link.forget()
    began = time.monotonic()
    scene.wait_for_stored(4 * 1000 * 8, timeout_s=_SOON_S + 10)
    rpc.wait_for_agent(scene.stack.colony, scene.stack.agent_id, "online", _SOON_S)
    scene.notes.append(f"caught up {time.monotonic() - began:.1f} s later")
    for link in _links(scene).both():
        link.heal()


@fault("slow link", setting=linked)
def slow(scene: Scene) -> None:
    """Everything between them takes 300 ms longer."""
    scene.wait_for_stored(1000)
    for link in _links(scene).both():
        link.narrow(delay_s=0.3)
    scene.wait_for_stored(8000)
    session_id = next(iter(scene.sessions.values()))
    scene.expect(scene.session(session_id).status == "active", "a session does not bear 300 ms")
    _go_on(scene)


@fault("narrow link", setting=linked)
def narrow(scene: Scene) -> None:
    """The link carries less than the programs' events, so that the agent keeps ever more; then it is wide again."""
    scene.wait_for_stored(1000)
    _links(scene).to_agent.reset()  # so that no buffer of a fast connection hides it
    _links(scene).to_agent.narrow(bytes_per_s=60_000)
    scene.wait_for_stored(1500)
    time.sleep(15)
    scene.wait_for_stored(1500)
    _go_on(scene)


@fault("command behind a black hole", setting=linked)
def command(scene: Scene) -> None:
    """The link of a waiting command is cut, and is black for a while: it goes on after it, and prints every event once."""
    program = scene.programs[0]
    with link_to(scene.stack.colony) as link, ThreadPoolExecutor(1) as pool:
        waiting = Cli(link.address).start(
            "debug", "attach", program.service, "-f", program.function, "-d", "20s", "--follow", "-o", "jsonl"
        )
        outcome = pool.submit(waiting.communicate, timeout=90)  # from now on, lest the pipe be full
        own = _other_session(scene, program.service)
        link.cut()
        time.sleep(3)
        link.heal()
        time.sleep(2)
        link.black_hole()
        time.sleep(3)
        link.heal()
        stdout, stderr = outcome.result()
        whole = [json.loads(line)["sequence"] for line in stdout.splitlines()]
    scene.expect(waiting.returncode == 0, f"the command exited {waiting.returncode}: {stderr.decode()[-300:]}")
    stored = int(scene.session(own).ledger.stored)
    scene.expect(whole == list(range(1, stored + 1)), f"it printed {len(whole)} lines for {stored} events, or not in order")
    scene.notes.append(f"{len(whole)} events printed, through a cut and a black hole")


def _other_session(scene: Scene, service: str) -> str:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for session in rpc.sessions(scene.stack.colony, service_name=service, status="active"):
            if session.session_id not in scene.sessions.values() and session.ledger.stored:
                return str(session.session_id)
        time.sleep(0.05)
    raise TimeoutError(f"the command's session over {service} is not active")


def _go_on(scene: Scene) -> None:
    """The links are well again; so is everything else, soon."""
    for link in _links(scene).both():
        link.heal()
    scene.wait_for_stored(1000, timeout_s=_SOON_S)
    rpc.wait_for_agent(scene.stack.colony, scene.stack.agent_id, "online", _SOON_S)
