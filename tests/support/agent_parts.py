"""The agent's own parts without its daemon, for tests that look between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from coral.agent.attach import Attacher
from coral.agent.collectors import Collectors
from coral.agent.policy import LocalPolicy
from coral.agent.processes import Processes
from coral.agent.resolve import Resolver
from coral.elf.parser import Parser
from coral.kernel.engine import Engine
from coral.model.probe import ProbeConfig, ProbeFilter, ProbeSpec
from coral.procfs.table import ProcessTable


@asynccontextmanager
async def collectors_on(
    engine: Engine, *, limit: int = 4, policy: LocalPolicy | None = None, **limits: int
) -> AsyncIterator[Collectors]:
    """Running collectors over an engine, with everything below them real; at most ``limit`` at once."""
    async with Parser() as parser:
        processes = Processes(ProcessTable(), "test")
        attacher = Attacher(engine, Resolver(parser), processes, policy)
        collectors = Collectors(
            agent_id="test",
            engine=engine,
            attacher=attacher,
            processes=processes,
            window_bytes=1 << 20,
            limit=limit,
            **limits,
        )
        running = asyncio.create_task(collectors.run())
        try:
            yield collectors
        finally:
            running.cancel()
            await asyncio.wait([running])


def probe_of(service: str, function: str) -> ProbeSpec:
    """A minute of a function, with nothing filtered."""
    return ProbeSpec(
        service_name=service,
        function_name=function,
        duration_ns=60_000_000_000,
        config=ProbeConfig(),
        filter=ProbeFilter(),
    )
