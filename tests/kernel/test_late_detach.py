"""What the agent says of a detach while a child of its own, just forked, still holds the links."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support import build
from support.agent_parts import collectors_on, probe_of
from support.target import running
from support.text import changed_text

from coral.agent.collector import Collector
from coral.agent.readback import changed
from coral.agent.resolve import FunctionName, Located, Resolver
from coral.kernel.engine import Engine
from coral.model.session import InstanceStatus, ReasonCode, Status
from coral.model.site import Site
from coral.procfs.process import Process, ProcessId

pytestmark = pytest.mark.kernel


async def _ended(engine: Engine, service: str, held_s: float) -> Collector:
    """Attaches to a program, forks a child that lives for a while and closes nothing, and detaches meanwhile."""
    async with collectors_on(engine) as collectors:
        collector = await collectors.start(probe_of(service, "work"), session_id="", of_colony=False, actor="test")
        child = _forked(held_s)
        try:
            return await collectors.stop(collector.collector_id)
        finally:
            await asyncio.to_thread(os.waitpid, child, 0)


def test_a_process_that_joins_while_text_is_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that is forked during the detach joins the collector without disturbing it."""

    async def stopped(engine: Engine, service: str) -> Collector:
        async with collectors_on(engine) as collectors:
            collector = await collectors.start(probe_of(service, "work"), session_id="", of_colony=False, actor="test")
            (parent,) = collector.tracked.values()
            newcomers = (
                replace(parent, id=ProcessId(pid=pid, start_time_ns=1), number=pid) for pid in itertools.count(1 << 30)
            )

            def read_back(*arguments: Any) -> list[Site]:
                collector.track(next(newcomers))
                return changed(*arguments)

            monkeypatch.setattr("coral.agent.left_behind.changed", read_back)
            return await asyncio.wait_for(collectors.stop(collector.collector_id), 60)

    engine = Engine(ring_bytes=1 << 20, max_open_calls=4096)
    try:
        with running(build.c_program("loop"), "--calls", 10) as target:
            assert asyncio.run(stopped(engine, target.service)).status is Status.DETACHED
    finally:
        engine.close()


def _forked(lives_s: float) -> int:
    """The pid of a child that has all descriptors of this process."""
    child = os.fork()
    if not child:
        time.sleep(lives_s)
        os._exit(0)
    return child


@pytest.mark.parametrize(("held_s", "complains"), [(0.2, False), (2.0, True)])
def test_a_detach_waits_for_links_that_a_forked_child_holds(held_s: float, complains: bool) -> None:
    """Breakpoints that a child keeps in place for a moment are waited for; those that stay for seconds are reported."""
    engine = Engine(ring_bytes=1 << 20, max_open_calls=4096)
    try:
        with running(build.c_program("loop"), "--calls", 10) as target:
            collector = asyncio.run(_ended(engine, target.service, held_s))
            assert collector.reason.startswith("After the detach") == complains
            assert changed_text(target.pid) == []
    finally:
        engine.close()


def test_a_deadline_waits_for_no_program_that_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector whose time is up detaches, and is ended, while the program of a process that joins is still being read."""
    asked, read = asyncio.Event(), asyncio.Event()
    locate = Resolver.locate

    async def slow(self: Resolver, process: Process, function: FunctionName) -> Located:
        asked.set()
        await read.wait()
        return await locate(self, process, function)

    async def ended(engine: Engine, service: str, text: Callable[[], list[str]]) -> Collector:
        async with collectors_on(engine) as collectors:
            collector = await collectors.start(probe_of(service, "work"), session_id="", of_colony=False, actor="test")
            assert text() != []
            monkeypatch.setattr(Resolver, "locate", slow)
            with running(build.c_program("loop"), "--calls", 10, service=service):
                joining = asyncio.create_task(collectors._processes.instances(service))
                await asyncio.wait_for(asked.wait(), 100)
                collector.request_stop(ReasonCode.DEADLINE)
                await asyncio.wait_for(collector.ended.wait(), 100)
                assert text() == []
                read.set()
                await joining
            return collector

    engine = Engine(ring_bytes=1 << 20, max_open_calls=4096)
    try:
        with running(build.c_program("loop"), "--calls", 10) as target:
            collector = asyncio.run(ended(engine, target.service, lambda: changed_text(target.pid)))
            assert collector.status is Status.EXPIRED
            assert [one.status for one in collector.instances] == [InstanceStatus.DETACHED]
    finally:
        engine.close()
