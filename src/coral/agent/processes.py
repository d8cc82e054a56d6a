"""The host's processes as the daemon follows them: a report of the kernel leads to a fresh look, and news go to listeners."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from rapidfuzz import process as fuzzy

from coral.model.errors import NotFound
from coral.model.service import Service
from coral.procfs.table import Changes, Entry, ProcessTable

_PAUSE_S = 0.05
"""Between looks when the kernel reports one exec after another."""
_IDLE_S = 2.0
"""A look is due after this long even without a report: the report may have been lost, and a fork alone is not reported."""

Listener = Callable[[Changes], Awaitable[None]]


class Processes:
    """A ``ProcessTable`` behind the event loop.

    Args:
        table: What is kept of the processes.
        agent_id: This host.
    """

    def __init__(self, table: ProcessTable, agent_id: str) -> None:
        self._table = table
        self._agent_id = agent_id
        self._news: list[Callable[[], None]] = []
        self._reported = asyncio.Event()
        self._looking = asyncio.Lock()
        self._telling = asyncio.Lock()
        self._listeners: list[Listener] = []
        self.services_changed = asyncio.Event()
        self.services: tuple[Service, ...] = ()

    def on_change(self, listener: Listener) -> None:
        """Calls ``listener`` after each look that found that processes started, called exec or ended."""
        self._listeners.append(listener)

    def exec_seen(self, pid: int) -> None:
        """The kernel reported an exec."""
        self._note(lambda: self._table.notify_exec(pid))

    def fork_seen(self, parent: int, child: int) -> None:
        """The kernel reported a fork."""
        self._note(lambda: self._table.notify_fork(parent, child))

    def exit_seen(self, pid: int) -> None:
        """The kernel reported an exit."""
        self._note(lambda: self._table.notify_exit(pid))

    async def instances(self, service: str) -> list[Entry]:
        """The instances of a service now, after a thorough look."""
        await self._look(thorough=True)
        return self._table.entries(service)

    def known_instances(self, service: str) -> list[Entry]:
        """The instances of a service as of the last look."""
        return self._table.entries(service)

    def all_instances(self) -> list[Entry]:
        """The instances of all services as of the last look."""
        return self._table.all_entries()

    def own_pids(self) -> set[int]:
        """Coral's own processes as of the last look."""
        return self._table.coral_pids()

    def pids(self) -> set[int]:
        """The processes of this host now. Blocking."""
        return self._table.pids()

    def no_service(self, name: str) -> NotFound:
        """The error for a service of which no process runs; the hint has the nearest names."""
        nearest = [found for found, _, _ in fuzzy.extract(name, [service.name for service in self.services], limit=3)]
        return NotFound(
            f"No process of service {name!r} runs on agent {self._agent_id}.",
            hint=f"The nearest names are {', '.join(nearest)}." if nearest else "See coral service list.",
            details={"nearest": ", ".join(nearest), "missing": "service"},
        )

    async def run(self) -> None:
        """Looks whenever the kernel reports something, and now and then, until cancelled."""
        while True:
            await self._look(thorough=False)
            try:
                async with asyncio.timeout(_IDLE_S):
                    await self._reported.wait()
            except TimeoutError:
                continue
            # At once: a program may write over its environment within milliseconds of its exec.
            await self._take_note()
            await asyncio.sleep(_PAUSE_S)

    def _note(self, news: Callable[[], None]) -> None:
        self._news.append(news)
        self._reported.set()

    async def _look(self, *, thorough: bool) -> None:
        async with self._looking:
            await self._take_note()
            changes = await asyncio.to_thread(self._table.refresh, thorough=thorough)
            services = tuple(
                Service(
                    name=summary.name,
                    agent_id=self._agent_id,
                    instances=summary.instances,
                    rule=summary.rule,
                    sdk_enabled=bool(summary.sdk_addr),
                    sdk_addr=summary.sdk_addr,
                    sdk_version=summary.sdk_version,
                )
                for summary in self._table.services().values()
            )
        if services != self.services:
            self.services = services
            self.services_changed.set()
        if changes.started or changes.exited:
            for listener in self._listeners:
                await listener(changes)

    async def _take_note(self) -> None:
        async with self._telling:  # what happened first is told first
            self._reported.clear()
            news, self._news = self._news, []
            if news:
                await asyncio.to_thread(_apply, news)


def _apply(news: Sequence[Callable[[], None]]) -> None:
    for tell in news:
        tell()
