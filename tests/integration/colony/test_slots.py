"""Many operators and few slots, seen from the agent: with a colony that is killed in the middle."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from support import rpc
from support.running_colony import attach_request, ended, eventually, running_colony
from support.stack import Daemon, free_port
from support.synthetic_agent import SyntheticAgent

from coral.client.colony import ColonyClient
from coral.model.errors import DeadlineExceeded, ResourceExhausted, Unavailable

_OPERATORS = 10
_TURNS = 5
_LIMIT = 5
_SESSION_S = 2.0
"""What an attach leaves behind whose caller did not hear of it: it holds its slot until then."""


class _Colony:
    """A colony in a process of its own, with a limit of five sessions on an agent."""

    def __init__(self, folder: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._folder = folder
        self._daemon: Daemon | None = None

    async def start(self) -> None:
        """Starts it, and waits until it answers."""
        options = ["--insecure", "--listen", self.address, "--state-dir", str(self._folder / "colony")]
        limits = {
            "CORAL_COLONY__MAX_SESSIONS_PER_AGENT": str(_LIMIT),
            "CORAL_COLONY__SLOT_WAIT_S": "20",
            "CORAL_COLONY__HEARTBEAT_MS": "100",
        }
        self._daemon = await asyncio.to_thread(Daemon, ["colony", "start", *options], self._folder / "colony.log", limits)
        await asyncio.to_thread(rpc.wait_until_healthy, self.address)

    async def kill(self) -> None:
        """Ends it as a crash would."""
        assert self._daemon is not None
        await asyncio.to_thread(self._daemon.kill9)

    def stop(self) -> None:
        """Ends it, if it runs."""
        if self._daemon is not None:
            self._daemon.stop()


async def _insist(client: ColonyClient) -> str:
    """Attaches, however often the colony goes away meanwhile; returns the session's id."""
    while True:
        try:
            return (await client.attach(attach_request(seconds=_SESSION_S))).session_id
        except (Unavailable, DeadlineExceeded):
            await asyncio.sleep(0.05)


async def _let_go(client: ColonyClient, session_id: str) -> None:
    """Detaches, likewise."""
    while True:
        try:
            await client.detach(session_id)
        except (Unavailable, DeadlineExceeded):
            await asyncio.sleep(0.05)
        else:
            return


def test_ten_operators_five_slots_and_a_killed_colony(tmp_path: Path) -> None:
    """The agent never runs six, every operator gets every turn, and none waits while another has three."""

    async def run() -> None:
        colony = _Colony(tmp_path)
        served: list[str] = []
        lives: list[int] = []
        waits: list[int] = []
        enough = asyncio.Event()

        async def operator(name: str, chance: random.Random) -> None:
            async with ColonyClient(colony.address, caller=name) as client:
                for _ in range(_TURNS):
                    asked, life = len(served), len(lives)
                    session_id = await _insist(client)
                    if life == len(lives):  # who was asked of a colony that died has to stand in line anew
                        waits.append(max(Counter(served[asked:]).values(), default=0))
                    served.append(name)
                    if len(served) >= _OPERATORS * _TURNS // 3:
                        enough.set()
                    await asyncio.sleep(chance.uniform(0.005, 0.05))
                    await _let_go(client, session_id)

        async with SyntheticAgent() as agent:
            agent.start_takes_s = 0.02
            await colony.start()
            try:
                await agent.report_to(colony.address)
                async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                    for number in range(_OPERATORS):
                        group.create_task(operator(f"operator-{number}@desk", random.Random(number)))
                    await enough.wait()
                    await colony.kill()
                    lives.append(1)
                    await colony.start()
            finally:
                colony.stop()
            assert agent.most == _LIMIT
        assert Counter(served) == Counter({f"operator-{number}@desk": _TURNS for number in range(_OPERATORS)})
        assert max(waits) <= 2

    asyncio.run(run())


def test_what_was_being_attached_when_the_colony_died_holds_its_slot(tmp_path: Path) -> None:
    """After a restart an attach waits until the agent has let go of what the earlier colony had begun there."""

    async def run() -> None:
        async with SyntheticAgent() as agent:
            colony = _Colony(tmp_path)
            await colony.start()
            try:
                await agent.report_to(colony.address)
                agent.before_start = asyncio.Event()
                async with ColonyClient(colony.address) as client:
                    lost = [asyncio.create_task(client.attach(attach_request())) for _ in range(_LIMIT)]
                    await _until(lambda: len(agent.started) == _LIMIT)
                    await colony.kill()
                    assert all(
                        isinstance(error, Unavailable) for error in await asyncio.gather(*lost, return_exceptions=True)
                    )
                await colony.start()
                async with ColonyClient(colony.address) as client:
                    attach = asyncio.create_task(_insist(client))
                    await asyncio.sleep(1.5)  # in which the agent reports more than once, and is still attaching
                    assert not attach.done()
                    agent.before_start.set()
                    agent.before_start = None
                    session_id = await attach
                    assert len(agent.stopped) == _LIMIT
                    assert agent.most == _LIMIT
                    assert (await client.session(session_id)).status == "active"
            finally:
                colony.stop()

    asyncio.run(run())


def test_a_session_that_its_agent_did_not_confirm_holds_its_slot(tmp_path: Path) -> None:
    """Detached while the agent was away, a session is over and its probe perhaps not: it counts until the agent is back."""

    async def run() -> None:
        async with (
            SyntheticAgent() as agent,
            running_colony(tmp_path, max_sessions=1, slot_wait_s=0.2) as colony,
            ColonyClient(colony) as client,
        ):
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            kept = agent.collectors
            await agent.kill()
            assert "could not be asked to detach" in (await client.detach(session_id)).error
            assert (await ended(client, session_id)).status == "detached"
            try:
                await client.attach(attach_request())
                raise AssertionError("a sixth")
            except ResourceExhausted as refused:
                assert f"{session_id} by " in refused.message
                assert "over, but not confirmed by agent-1" in refused.message
            agent.collectors = kept
            await agent.start()
            await agent.report_to(colony)
            await _until(lambda: bool(agent.stopped))
            await _insist_on_room(client)
            assert agent.most == 1

    asyncio.run(run())


async def _until(condition: Callable[[], bool]) -> None:
    """Waits for something that the synthetic agent was asked."""

    async def look() -> bool:
        return condition()

    await eventually(look)


async def _insist_on_room(client: ColonyClient) -> None:
    """Attaches as soon as there is room."""
    async with asyncio.timeout(10):
        while True:
            try:
                await client.attach(attach_request())
            except ResourceExhausted:
                continue
            return
