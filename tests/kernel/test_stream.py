"""What a reader of a collector's stream is told about its processes."""

from __future__ import annotations

import asyncio

import pytest
from support import build
from support.agent_parts import collectors_on, probe_of
from support.target import Target, running

from coral.agent.servicer import DebugServicer
from coral.events.batch import decode
from coral.kernel.engine import Engine
from coral.wire._generated.mesh.v1 import ebpf_pb2

pytestmark = pytest.mark.kernel


async def _told(engine: Engine, service: str) -> list[list[str]]:
    """The reasons of the instances in two batches, between which a reason changes while the first is still being taken."""
    async with collectors_on(engine) as collectors:
        collector = await collectors.start(probe_of(service, "work"), session_id="", of_colony=False, actor="test")
        request = ebpf_pb2.StreamUprobeEventsRequest(collector_id=collector.collector_id)
        stream = DebugServicer(collectors).StreamUprobeEvents(request, None)
        first = await anext(stream)
        (tracked,) = collector.tracked.values()
        collector.update(tracked, reason="changed meanwhile")
        second = await anext(stream)
        await stream.aclose()
        return [[instance.reason for instance in batch.instances] for batch in (first, second)]


def test_a_change_while_the_reader_takes_a_batch_is_in_the_next() -> None:
    """What happens to a process between the making of a batch and the reader's asking for the next is not lost."""
    engine = Engine(ring_bytes=1 << 20, max_open_calls=4096)
    try:
        with running(build.c_program("loop"), "--calls", 10) as target:
            assert asyncio.run(_told(engine, target.service)) == [[""], ["changed meanwhile"]]
    finally:
        engine.close()


async def _until_the_end(engine: Engine, target: Target) -> tuple[list[int], ebpf_pb2.UprobeEventBatch]:
    """The sequences that a reader gets of a collector whose agent ends right behind the last call; and the last batch."""
    sequences: list[int] = []
    async with collectors_on(engine) as collectors:
        collector = await collectors.start(probe_of(target.service, "work"), session_id="", of_colony=False, actor="test")
        request = ebpf_pb2.StreamUprobeEventsRequest(collector_id=collector.collector_id)
        stream = DebugServicer(collectors).StreamUprobeEvents(request, None)
        await anext(stream)
        await asyncio.to_thread(target.run)
    async with asyncio.timeout(10):
        async for last in stream:
            sequences += decode(last.arrow_ipc)["sequence"].to_pylist() if last.arrow_ipc else []
            if last.ledger.entered == last.ledger.emitted == len(sequences):
                break
    await stream.aclose()
    return sequences, last


def test_an_agent_that_ends_tells_its_readers_all_that_it_counted() -> None:
    """What was still on its way from the kernel is delivered, and the last ledger says the same; it is no final one."""
    engine = Engine(ring_bytes=1 << 20, max_open_calls=4096)
    try:
        with running(build.c_program("loop"), "--calls", 3000) as target:
            sequences, last = asyncio.run(_until_the_end(engine, target))
            assert sequences == list(range(1, 3001))
            assert (last.ledger.entered, last.ledger.returned, last.final) == (3000, 3000, False)
    finally:
        engine.close()
