"""What the agent does when the kernel's reports about processes reach it late, as they do on a busy host."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from support import build
from support.agent_parts import collectors_on, probe_of
from support.target import running

from coral.kernel.engine import Drained, Engine
from coral.model.session import InstanceStatus

pytestmark = pytest.mark.kernel


class LateEngine(Engine):
    """An engine whose reports about processes are held back until ``released``."""

    released = False

    def drain(self) -> Drained:
        """Keeps what came, and hands it out in its order later."""
        drained = super().drain()
        self._kept = np.concatenate((getattr(self, "_kept", drained.control[:0]), drained.control))
        if not self.released:
            return Drained(control=drained.control[:0], events=drained.events)
        kept, self._kept = self._kept, drained.control[:0]
        return Drained(control=kept, events=drained.events)


async def _statuses(engine: LateEngine, service: str, pid: int) -> list[InstanceStatus]:
    """Attaches to a program, then lets the reports in from before, and says what became of its instance."""
    async with collectors_on(engine) as collectors:
        collector = await collectors.start(probe_of(service, "work"), session_id="", of_colony=False, actor="test")
        engine.released = True
        await collectors.stop(collector.collector_id)
        return [instance.status for instance in collector.instances if instance.pid == pid]


def test_a_late_report_of_the_exec_that_started_a_program_does_not_end_it() -> None:
    """The exec of a program that was attached meanwhile is older than its instance, and says nothing about it."""
    engine = LateEngine(ring_bytes=1 << 20, max_open_calls=4096)
    try:
        with running(build.c_program("loop"), "--calls", 10) as target:
            assert asyncio.run(_statuses(engine, target.service, target.pid)) == [InstanceStatus.DETACHED]
    finally:
        engine.close()
