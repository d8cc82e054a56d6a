"""What survives: the colony's restart, the agent's, a cut link; and what is said about what did not."""

from __future__ import annotations

import asyncio
import resource
import signal
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from support.colony_process import colony_process
from support.running_colony import attach_request, ended, eventually, running_colony, stored, table
from support.synthetic_agent import SyntheticAgent, SyntheticCollector

from coral.client.colony import ColonyClient
from coral.colony.daemon import Colony
from coral.config.settings import ColonySettings
from coral.model.errors import FailedPrecondition, InvalidArgument
from coral.wire import convert

ONCE = "SELECT count(*) AS n, count(DISTINCT (collector_id, sequence)) AS d FROM uprobe_events"


async def _emit(collector: SyntheticCollector, total: int, *, each: int = 40, every_s: float = 0.01) -> None:
    """A program's calls at 4,000 a second."""
    for _ in range(total // each):
        collector.emit([1000] * each)
        await asyncio.sleep(every_s)


def test_colony_restart(tmp_path: Path) -> None:
    """A colony that is stopped and started again mid-stream stores every event once and reports no unknown interval."""

    async def run() -> None:
        async with SyntheticAgent() as agent:
            async with running_colony(tmp_path) as colony, ColonyClient(colony) as client:
                await agent.report_to(colony)
                session_id = (await client.attach(attach_request(seconds=20))).session_id
                emitting = asyncio.create_task(_emit(agent.only, 4000))
                await stored(client, session_id, 500)
            async with running_colony(tmp_path) as colony, ColonyClient(colony) as client:
                assert (await client.session(session_id)).status == "active"
                await agent.report_to(colony)
                await emitting
                await client.detach(session_id)
                session = await client.session(session_id)
                assert (session.status, session.ledger.stored, session.ledger.balanced) == ("detached", 4000, True)
                assert not session.ledger.unknown_intervals
                assert len(session.collectors) == 1
                assert agent.streamed[0] == 0
                assert agent.streamed[1] >= 500, "reading goes on where the database stands"
                assert await table(client, ONCE) == [{"n": 4000, "d": 4000}]
                results = await client.results(session_id)
                assert convert.duration_ns(results.statistics.duration_sum) == 4_000_000

    asyncio.run(run())


def test_colony_killed(tmp_path: Path) -> None:
    """After kill -9 at 4,000 calls a second nothing is missing and nothing is there twice."""

    async def run() -> None:
        async with SyntheticAgent() as agent:
            process, colony = await colony_process(tmp_path, "127.0.0.1:0")
            await agent.report_to(colony)
            async with ColonyClient(colony) as client:
                session_id = (await client.attach(attach_request(seconds=30))).session_id
                emitting = asyncio.create_task(_emit(agent.only, 8000))
                await stored(client, session_id, 1000)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            process, colony = await colony_process(tmp_path, colony)
            async with ColonyClient(colony) as client:
                await emitting
                await client.detach(session_id)
                session = await client.session(session_id)
                assert (session.ledger.stored, session.ledger.queue_dropped, session.ledger.balanced) == (8000, 0, True)
                assert not session.ledger.unknown_intervals
                assert await table(client, ONCE) == [{"n": 8000, "d": 8000}]
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0

    asyncio.run(run())


def test_colony_down_at_the_deadline(tmp_path: Path) -> None:
    """A session whose deadline passes without a colony is closed from the agent's final batch when one is there again."""

    async def run() -> None:
        async with SyntheticAgent() as agent:
            async with running_colony(tmp_path) as colony, ColonyClient(colony) as client:
                await agent.report_to(colony)
                session_id = (await client.attach(attach_request(seconds=1))).session_id
            agent.only.emit([10] * 100)
            async with asyncio.timeout(5):
                while not agent.only.ended:
                    await agent.only.changed.wait()
            async with running_colony(tmp_path) as colony, ColonyClient(colony) as client:
                session = await ended(client, session_id)
                assert (session.status, session.reason_code, session.ledger.stored) == ("expired", "deadline", 100)
                assert session.ledger.balanced

    asyncio.run(run())


def test_agent_restart(tmp_path: Path) -> None:
    """An agent that dies and comes back gets a new collector; exactly one unknown interval covers its absence."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request(seconds=30))).session_id
            old = agent.only
            old.emit([10] * 100)
            await stored(client, session_id, 100)
            died_ns = time.time_ns()
            await agent.kill()
            await asyncio.sleep(0.3)
            assert (await client.session(session_id)).status == "active"
            await agent.come_back(colony)

            async def two() -> Any:
                session = await client.session(session_id)
                return session if len(session.collectors) == 2 else None

            session = await eventually(two)
            back_ns = time.time_ns()
            assert session.status == "active"
            assert (agent.only.request.session_id, agent.only.request.function_name) == (session_id, "main.Pay")
            agent.only.emit([20] * 50)
            await stored(client, session_id, 150)
            await client.detach(session_id)
            session = await client.session(session_id)
            gone, successor = session.collectors
            assert (gone.collector_id, gone.status, successor.status) == (old.collector_id, "failed", "detached")
            (gap,) = session.ledger.unknown_intervals
            from_ns, to_ns = convert.timestamp_ns(getattr(gap, "from")), convert.timestamp_ns(gap.to)
            assert died_ns - 500_000_000 <= from_ns <= died_ns
            assert died_ns <= to_ns <= back_ns
            assert not successor.ledger.unknown_intervals
            assert not session.ledger.HasField("balanced")
            assert (session.status, session.ledger.stored, session.ledger.entered) == ("detached", 150, 150)
            assert await table(client, ONCE) == [{"n": 150, "d": 150}]

    asyncio.run(run())


def test_agent_restarted_while_the_colony_was_down(tmp_path: Path) -> None:
    """Both restarts at once still make one interval, and the session goes on."""

    async def run() -> None:
        async with SyntheticAgent() as agent:
            async with running_colony(tmp_path) as colony, ColonyClient(colony) as client:
                await agent.report_to(colony)
                session_id = (await client.attach(attach_request(seconds=30))).session_id
                agent.only.emit([10] * 10)
                await stored(client, session_id, 10)
            await agent.kill()
            async with running_colony(tmp_path) as colony, ColonyClient(colony) as client:
                await agent.come_back(colony)

                async def two() -> Any:
                    session = await client.session(session_id)
                    return session if len(session.collectors) == 2 else None

                session = await eventually(two)
                assert session.status == "active"
                await client.detach(session_id)
                assert len((await client.session(session_id)).ledger.unknown_intervals) == 1

    asyncio.run(run())


def test_lost(tmp_path: Path) -> None:
    """A session whose only agent is gone at the deadline, and stays away, is lost, with what is unknown named."""

    async def run() -> None:
        async with (
            SyntheticAgent() as agent,
            running_colony(tmp_path, grace_s=0.5) as colony,
            ColonyClient(colony) as client,
        ):
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request(seconds=1))).session_id
            agent.only.emit([10] * 10)
            await stored(client, session_id, 10)
            await agent.kill()
            session = await ended(client, session_id)
            assert (session.status, session.reason_code, session.ledger.stored) == ("lost", "agent_gone", 10)
            (gap,) = session.ledger.unknown_intervals
            assert convert.timestamp_ns(gap.to) == convert.timestamp_ns(session.expires_at)
            assert not session.ledger.HasField("balanced")
            late_ns = convert.timestamp_ns(session.ended_at) - convert.timestamp_ns(session.expires_at)
            assert 400_000_000 <= late_ns < 2_000_000_000

    asyncio.run(run())


def test_detach_without_the_agent(tmp_path: Path) -> None:
    """Detaching while the agent is away ends the session and says who detaches when; the agent is told when it is back."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request(seconds=30))).session_id
            collector = agent.only
            await agent.kill()
            detached = await client.detach(session_id)
            assert detached.success
            assert "could not be asked to detach" in detached.error
            session = await client.session(session_id)
            assert (session.status, session.reason_code) == ("detached", "user")
            assert "at the deadline" in session.reason
            await agent.start()  # the same life: only the link was cut
            await agent.report_to(colony)

            async def told() -> bool:
                return collector.ended

            await eventually(told)
            assert await client.session(session_id) == session

    asyncio.run(run())


def test_cut_link(tmp_path: Path) -> None:
    """An agent that is silent for a while and then goes on in the same life loses nothing."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request(seconds=30))).session_id
            agent.only.emit([10] * 10)
            await stored(client, session_id, 10)
            agent.silent = True
            agent.only.emit([10] * 90)

            async def offline() -> bool:
                return [one.status for one in await client.agents()] == ["offline"]

            await eventually(offline)
            agent.silent = False
            session = await stored(client, session_id, 100)
            assert (session.status, len(session.collectors)) == ("active", 1)
            assert not session.ledger.unknown_intervals

    asyncio.run(run())


def test_leftovers_are_stopped(tmp_path: Path) -> None:
    """A collector that an agent reports and no session knows is stopped; those of sessions go on."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            known = agent.only
            stray = SyntheticCollector(
                collector_id="01STRAY", request=known.request, agent_id="agent-1", expires_at_ns=known.expires_at_ns
            )
            agent.collectors[stray.collector_id] = stray

            async def stopped() -> bool:
                return stray.ended

            await eventually(stopped)
            assert not known.ended
            assert (await client.session(session_id)).status == "active"

    asyncio.run(run())


def test_events_that_fell_out_of_the_window(tmp_path: Path) -> None:
    """Sequences that never arrive are counted as queue_dropped, in the middle and at the end; the ledger still balances."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(tmp_path) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            agent.only.emit([10] * 10)
            agent.only.emit([10] * 5, keep=False)
            agent.only.emit([10] * 10)
            await stored(client, session_id, 20)
            agent.only.emit([10] * 3, keep=False)
            await client.detach(session_id)
            ledger = (await client.session(session_id)).ledger
            assert (ledger.emitted, ledger.stored, ledger.queue_dropped, ledger.in_transit) == (28, 20, 8, 0)
            assert ledger.balanced

    asyncio.run(run())


def test_garbage_from_an_agent(tmp_path: Path) -> None:
    """An agent that keeps sending what is no batch fails its collector, and nothing else."""

    async def run() -> None:
        async with (
            SyntheticAgent("a") as good,
            SyntheticAgent("b") as bad,
            running_colony(tmp_path) as colony,
            ColonyClient(colony) as client,
        ):
            await good.report_to(colony)
            await bad.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            bad.raw = b"\xff" * 100
            bad.only.ring()

            async def failed() -> Any:
                session = await client.session(session_id)
                states = {one.agent_id: one.status for one in session.collectors}
                return session if states == {"a": "active", "b": "failed"} else None

            assert (await eventually(failed)).status == "active"
            good.only.emit([1, 2, 3])
            assert (await stored(client, session_id, 3)).status == "active"

    asyncio.run(run())


def test_too_little_space(tmp_path: Path) -> None:
    """Below the floor of free space events are counted as dropped instead of stored, and control goes on."""

    async def run() -> None:
        async with (
            SyntheticAgent() as agent,
            running_colony(tmp_path, min_free_bytes=1 << 60) as colony,
            ColonyClient(colony) as client,
        ):
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            agent.only.emit([10] * 10)
            await client.detach(session_id)
            ledger = (await client.session(session_id)).ledger
            assert (ledger.emitted, ledger.stored, ledger.queue_dropped, ledger.balanced) == (10, 0, 10, True)
            assert await table(client, "SELECT * FROM uprobe_events") == []

    asyncio.run(run())


def test_files_that_cannot_grow(tmp_path: Path) -> None:
    """When the events file cannot be written, control goes on; when it can again, every event is stored, each once."""

    async def run() -> None:
        log = tmp_path / "log"
        with log.open("wb") as output:
            process, colony = await colony_process(tmp_path / "state", "127.0.0.1:0", log=output.fileno())
        unlimited = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        async with SyntheticAgent() as agent, ColonyClient(colony) as client:
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            agent.only.emit(range(1, 101))
            await stored(client, session_id, 100)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1 << 20, unlimited[1]))
            for _ in range(10):
                agent.only.emit(np.random.default_rng(1).integers(1, 1 << 40, 10_000))

            async def failed() -> bool:
                return b"database closed after an error" in log.read_bytes()

            await eventually(failed)
            assert (await client.session(session_id)).status == "active"
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)
            await stored(client, session_id, 100_100)
            await client.detach(session_id)
            assert (await client.session(session_id)).ledger.balanced
            assert await table(client, ONCE) == [{"n": 100_100, "d": 100_100}]
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0

    asyncio.run(run())


def test_interrupted_attach(tmp_path: Path) -> None:
    """A session that was pending without a collector when the colony stopped is failed after its restart."""

    async def run() -> None:
        async with SyntheticAgent() as agent:
            agent.before_start = asyncio.Event()
            async with running_colony(tmp_path) as colony, ColonyClient(colony) as client:
                await agent.report_to(colony)
                attaching = asyncio.create_task(client.attach(attach_request()))

                async def pending() -> bool:
                    return [one.status async for one in client.sessions()] == ["pending"]

                await eventually(pending)
            await asyncio.wait({attaching})
            assert attaching.cancelled() or attaching.exception() is not None
            async with running_colony(tmp_path) as colony, ColonyClient(colony) as client:

                async def failed() -> bool:
                    return [one.status async for one in client.sessions()] == ["failed"]

                await eventually(failed)

    asyncio.run(run())


def test_stopped_between_the_last_events_and_the_end(tmp_path: Path) -> None:
    """What a colony had stored of a collector's end, and not noted, its next life completes: no process stays attached."""

    async def run() -> None:
        async with SyntheticAgent() as agent:
            async with running_colony(tmp_path) as colony, ColonyClient(colony) as client:
                await agent.report_to(colony)
                session_id = (await client.attach(attach_request(seconds=30))).session_id
                agent.only.emit([1000] * 40)
                await stored(client, session_id, 40)
            with duckdb.connect(str(tmp_path / "events.duckdb")) as events:
                events.execute("UPDATE collector_progress SET ended = true, status = 'expired', reason_code = 'deadline'")
            async with running_colony(tmp_path) as colony, ColonyClient(colony) as client:
                session = await ended(client, session_id)
                assert (session.status, session.reason_code) == ("expired", "deadline")
                states = [one.status for collector in session.collectors for one in collector.instances]
                assert states == ["detached"] * len(states) != []

    asyncio.run(run())


@pytest.mark.parametrize(
    ("listen", "expected", "text"),
    [
        ("0.0.0.0:0", FailedPrecondition, "no authentication"),
        ("somewhere", InvalidArgument, "HOST:PORT"),
        ("127.0.0.1:{taken}", FailedPrecondition, "--listen"),
    ],
)
def test_where_it_does_not_listen(tmp_path: Path, listen: str, expected: type[Exception], text: str) -> None:
    """An address that is not loopback, not one, or taken is refused before anything is touched."""

    async def run() -> None:
        async with SyntheticAgent() as agent:
            address = listen.format(taken=agent.address.rpartition(":")[2])
            with pytest.raises(expected, match=text):
                await Colony(ColonySettings(listen=address, state_dir=tmp_path / "state")).start()
            assert not (tmp_path / "state").exists()

    asyncio.run(run())


def test_state_directory_in_use(tmp_path: Path) -> None:
    """A second colony on the same state directory is refused, and told who has it."""

    async def run() -> None:
        process, _ = await colony_process(tmp_path, "127.0.0.1:0")
        with pytest.raises(FailedPrecondition, match=rf"in use by another process: .*{process.pid}"):
            await Colony(ColonySettings(listen="127.0.0.1:0", state_dir=tmp_path)).start()
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0

    asyncio.run(run())


def test_retention(tmp_path: Path) -> None:
    """Ended sessions go after their retention, events and all; running ones and the audit log stay."""

    async def run() -> None:
        async with SyntheticAgent() as agent:
            async with running_colony(tmp_path) as colony, ColonyClient(colony) as client:
                await agent.report_to(colony)
                old = (await client.attach(attach_request())).session_id
                agent.only.emit([1, 2, 3])
                await client.detach(old)
                kept = (await client.attach(attach_request())).session_id
            await asyncio.sleep(1.1)
            async with running_colony(tmp_path, session_retention_s=1) as colony, ColonyClient(colony) as client:

                async def removed() -> bool:
                    return [one.session_id async for one in client.sessions()] == [kept]

                await eventually(removed)
                mine = {collector.collector_id for collector in (await client.session(kept)).collectors}
                for name in ("uprobe_events", "collector_progress", "debug_instances", "debug_collectors"):
                    rows = await table(client, f"SELECT DISTINCT collector_id FROM {name}")
                    assert {row["collector_id"] for row in rows} <= mine, name
                actions = await table(
                    client, f"SELECT action, outcome FROM audit_log WHERE session_id = '{old}' ORDER BY sequence"
                )
                assert [(row["action"], row["outcome"]) for row in actions] == [
                    (action, outcome) for action in ("AttachUprobe", "DetachUprobe") for outcome in ("started", "ok")
                ]

    asyncio.run(run())
