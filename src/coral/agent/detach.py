"""Taking a collector's probes back, in time: at its deadline nothing else comes first."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from coral.agent.attach import Attacher, attached_sites
from coral.agent.collector import Collector
from coral.agent.guards import Guards
from coral.kernel.engine import Engine


class Detacher:
    """Detaches collectors.

    Args:
        engine: The kernel layer.
        attacher: What brought their processes in.

    Attributes:
        guards: What stays where a debugger may have taken a breakpoint for code.
    """

    def __init__(self, engine: Engine, attacher: Attacher) -> None:
        self._engine = engine
        self._attacher = attacher
        self.guards = Guards(engine)

    async def take_back(self, collector: Collector) -> dict[int, str]:
        """Detaches what is attached now.

        Each in a thread of its own: a detach waits for the kernel, many wait together, and those that end at one moment
        must not queue for the few threads that everything else is done in.

        Returns:
            Where a debugger has breakpoints kept, by process, as a sentence.
        """
        own = ThreadPoolExecutor(1, thread_name_prefix="detach")
        try:
            return await asyncio.get_running_loop().run_in_executor(own, self._work, collector)
        finally:
            own.shutdown(wait=False)

    def _work(self, collector: Collector) -> dict[int, str]:
        kept = self._guard(collector)
        self._engine.begin_detach(collector.slot)
        self._attacher.close_links([collector])
        return kept

    def _guard(self, collector: Collector) -> dict[int, str]:
        """Keeps breakpoints that a debugger may have taken for code; says so, by process."""
        return {
            pid: f"It is under a debugger (pid {debugger}), which may have set breakpoints on probed instructions: "
            "those stay, without effect, until the debugger has let go of it."
            for group in list(collector.groups.values())
            if group.attachments
            for pid, debugger in self.guards.protect(group.fd, group.key, attached_sites(collector, group))
        }
