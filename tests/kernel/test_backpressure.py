"""What becomes of events that come faster than they are read: every path ends in a counter, and the kernel is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from support import build
from support.agent_parts import collectors_on, probe_of
from support.target import Target, running

from coral.agent.collector import Collector
from coral.agent.servicer import DebugServicer
from coral.events.batch import decode
from coral.kernel.engine import Engine
from coral.wire._generated.mesh.v1 import ebpf_pb2

pytestmark = pytest.mark.kernel

CALLS = 40_000
WINDOW_EVENTS = (1 << 20) // 40


def test_a_slow_reader_makes_the_kernel_hold_calls_back() -> None:
    """While a reader is behind, calls are counted as rate_limited; what was reported arrives without a gap, and more follows
    once it has caught up.
    """

    async def body(engine: Engine, target: Target, other: Target) -> None:
        async with collectors_on(engine) as collectors:
            collector = await collectors.start(probe_of(target.service, "work"), session_id="S", of_colony=True, actor="ann")
            stream = _stream(DebugServicer(collectors), collector)
            await anext(stream)  # from here on it reads nothing
            await asyncio.to_thread(target.run)
            held = collector.ledger
            assert held.rate_limited > 0
            read = await _sequences(stream, upto=await _reported(collector))
            assert read == list(range(1, len(read) + 1))
            assert len(read) <= WINDOW_EVENTS
            await anext(stream)  # it asks for more, so it has what came
            await asyncio.to_thread(other.run)
            await collectors.stop(collector.collector_id)
            read += await _sequences(stream, upto=collector.window.last_sequence)
            ledger = collector.ledger
            assert ledger.entered == ledger.returned == 2 * CALLS
            assert ledger.returned == ledger.emitted + ledger.rate_limited + ledger.ring_lost
            assert read == list(range(1, ledger.emitted + 1))
            assert ledger.emitted > held.emitted

    _with_targets(body)


def test_while_nobody_reads_the_newest_are_kept_and_the_rest_is_a_gap() -> None:
    """Nothing is held back for a reader that is not there: the next one gets the newest events, and counts the gap."""

    async def body(engine: Engine, target: Target, other: Target) -> None:
        async with collectors_on(engine) as collectors:
            collector = await collectors.start(probe_of(target.service, "work"), session_id="S", of_colony=True, actor="ann")
            await asyncio.to_thread(target.run)
            await collectors.stop(collector.collector_id)
            read = await _sequences(_stream(DebugServicer(collectors), collector), upto=collector.window.last_sequence)
            ledger = collector.ledger
            assert (ledger.entered, ledger.returned, ledger.rate_limited) == (CALLS, CALLS, 0)
            assert read == list(range(ledger.emitted - WINDOW_EVENTS + 1, ledger.emitted + 1))
            assert ledger.emitted + ledger.ring_lost == CALLS

    _with_targets(body)


def test_a_fast_reader_gets_everything_and_nothing_is_held_back() -> None:
    """A reader that keeps up is told of every call, although the window holds fewer than there are."""

    async def body(engine: Engine, target: Target, other: Target) -> None:
        async with collectors_on(engine) as collectors:
            collector = await collectors.start(probe_of(target.service, "work"), session_id="S", of_colony=True, actor="ann")
            reading = asyncio.create_task(_sequences(_stream(DebugServicer(collectors), collector), upto=None))
            await asyncio.to_thread(target.run)
            await collectors.stop(collector.collector_id)
            read = await reading
            ledger = collector.ledger
            assert ledger.rate_limited == 0
            assert read == list(range(1, ledger.emitted + 1))
            assert ledger.emitted + ledger.ring_lost == ledger.entered == CALLS

    _with_targets(body, rate=15_000)  # so that the reader, in the same process, does keep up


def _with_targets(body: Callable[[Engine, Target, Target], Awaitable[None]], *, rate: int = 0) -> None:
    """Runs it with two processes of one service, which make their calls as fast as they can or at a rate."""
    engine = Engine(ring_bytes=1 << 18, max_open_calls=4096)
    try:
        program = build.c_program("loop")
        with (
            running(program, "--calls", CALLS, "--rate", rate) as target,
            running(program, "--calls", CALLS, service=target.service) as other,
        ):
            asyncio.run(_finished(body(engine, target, other)))
    finally:
        engine.close()


def _stream(servicer: DebugServicer, collector: Collector) -> AsyncIterator[ebpf_pb2.UprobeEventBatch]:
    return servicer.StreamUprobeEvents(ebpf_pb2.StreamUprobeEventsRequest(collector_id=collector.collector_id), None)


async def _reported(collector: Collector) -> int:
    """Its last sequence, once all that the kernel reported has come."""
    with collector.listen() as changed:
        async with asyncio.timeout(10):
            while collector.window.last_sequence < collector.ledger.emitted:
                await changed.wait()
                changed.clear()
    return collector.window.last_sequence


async def _sequences(stream: AsyncIterator[ebpf_pb2.UprobeEventBatch], *, upto: int | None) -> list[int]:
    """The sequences that a stream brings, until one is reached, or to its end."""
    read: list[int] = []
    async with asyncio.timeout(30):
        async for batch in stream:
            read += decode(batch.arrow_ipc)["sequence"].to_pylist()
            if batch.last_sequence == upto:
                break
    return read


async def _finished(body: Awaitable[None]) -> None:
    await body
