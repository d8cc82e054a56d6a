"""What an agent holds by itself, whoever asks: how many collectors, in how many places, for how long, how many events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from support import build
from support.agent_parts import collectors_on, probe_of
from support.target import Target, running

from coral.agent.servicer import DebugServicer
from coral.kernel.engine import Engine
from coral.model.errors import InvalidArgument, ResourceExhausted
from coral.model.session import ReasonCode, Status
from coral.wire import convert
from coral.wire._generated.mesh.v1 import ebpf_pb2

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """The kernel layer, loaded once."""
    made = Engine(ring_bytes=1 << 22, max_open_calls=4096)
    yield made
    made.close()


def test_no_more_collectors_than_the_host_allows(engine: Engine) -> None:
    """A further one is refused, whatever the colony says, with who has the places; an end makes room."""

    async def body(service: str) -> None:
        async with collectors_on(engine, limit=1) as collectors:
            first = await collectors.start(probe_of(service, "work"), session_id="S1", of_colony=True, actor="ann@desk")
            with pytest.raises(ResourceExhausted) as refused:
                await collectors.start(probe_of(service, "work"), session_id="S2", of_colony=True, actor="ben@desk")
            assert refused.value.message.startswith(
                "Agent test runs 1 probes, which is its limit: S1 by ann@desk (work, ends "
            )
            assert refused.value.details == {"limit": "max_collectors", "allowed": "1"}
            await collectors.stop(first.collector_id)
            await collectors.start(probe_of(service, "work"), session_id="S2", of_colony=True, actor="ben@desk")

    with running(build.c_program("loop"), "--calls", 10) as target:
        asyncio.run(body(target.service))


def test_no_more_sites_than_the_host_allows(engine: Engine) -> None:
    """A function that would be probed in more places than one session may is refused, and nothing is left in the program."""

    async def body(service: str) -> None:
        async with collectors_on(engine, max_sites=1) as collectors:
            with pytest.raises(
                ResourceExhausted, match=r"work would be probed in \d+ places; one session may have 1 on this"
            ):
                await collectors.start(probe_of(service, "work"), session_id="S1", of_colony=True, actor="ann@desk")
            assert collectors.running == []

    with running(build.c_program("loop"), "--calls", 10) as target:
        asyncio.run(body(target.service))


@pytest.mark.parametrize("seconds", [600.000000001, 3600.0, 1e9])
def test_a_colony_cannot_probe_for_longer_than_ten_minutes(engine: Engine, seconds: float) -> None:
    """The agent refuses a longer duration itself; it takes no colony's word for it."""

    async def body(service: str) -> None:
        async with collectors_on(engine) as collectors:
            request = ebpf_pb2.StartUprobeCollectorRequest(
                service_name=service, function_name="work", session_id="S1", duration=convert.duration(round(seconds * 1e9))
            )
            with pytest.raises(InvalidArgument, match="out of range"):
                await DebugServicer(collectors).StartUprobeCollector(request, None)
            assert collectors.running == []

    with running(build.c_program("loop"), "--calls", 10) as target:
        asyncio.run(body(target.service))


def test_a_session_reports_no_more_events_than_the_host_allows(engine: Engine) -> None:
    """Of a fast loop no more than the rate and its burst are reported, and every other call is counted as rate_limited."""

    async def body(target: Target) -> None:
        async with collectors_on(engine, session_events_per_s=1000) as collectors:
            probe = probe_of(target.service, "work")
            collector = await collectors.start(probe, session_id="S1", of_colony=True, actor="ann@desk")
            before = time.monotonic()
            await asyncio.to_thread(target.run)
            took_s = time.monotonic() - before
            await collectors.stop(collector.collector_id)
            ledger = collector.ledger
            assert ledger.returned == 20_000
            assert ledger.rate_limited + ledger.emitted == 20_000
            assert 100 <= ledger.emitted <= 1000 * (took_s + 0.1) + 2

    with running(build.c_program("loop"), "--calls", 20_000) as target:
        asyncio.run(body(target))


def test_the_loudest_session_is_ended(engine: Engine) -> None:
    """While all sessions of a host report more than it allows, the one that reports most ends as over_budget; others stay."""

    async def body(loud: Target, quiet: Target) -> None:
        async with collectors_on(engine, events_per_s=1000) as collectors:
            other = await collectors.start(probe_of(quiet.service, "work"), session_id="S1", of_colony=True, actor="ann")
            loudest = await collectors.start(probe_of(loud.service, "work"), session_id="S2", of_colony=True, actor="ann")
            loud.go()
            async with asyncio.timeout(20):
                await loudest.ended.wait()
            assert (loudest.status, loudest.reason_code) == (Status.DETACHED, ReasonCode.OVER_BUDGET)
            assert "reported more events than it allows" in loudest.reason
            assert not other.ended.is_set()

    program = build.c_program("loop")
    with running(program, "--calls", 10) as quiet, running(program, "--calls", 10**7) as loud:
        asyncio.run(body(loud, quiet))
        loud.process.kill()
