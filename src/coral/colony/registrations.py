"""Registrations on their way into the control file: those that come while one write runs share the next."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import duckdb

from coral.colony.store import directory
from coral.colony.store.database import Database
from coral.model.service import Agent, Service


class Registrations:
    """Writes agents and what they see. A start of ten thousand hosts is some hundred statements, not forty thousand."""

    def __init__(self, control: Database) -> None:
        """Args: ``control`` is the control file."""
        self._control = control
        self._waiting: dict[str, tuple[Agent, Sequence[Service]]] = {}
        self._next: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def write(self, agent: Agent, services: Sequence[Service]) -> None:
        """Returns once an agent and its services are on the disk.

        Raises:
            Unavailable: The database cannot be written now.
        """
        self._waiting[agent.agent_id] = agent, services
        if self._next is None:
            self._next = asyncio.create_task(self._write())
        # Shielded: others wait for the same write.
        await asyncio.shield(self._next)

    async def _write(self) -> None:
        async with self._turn:
            taken, self._waiting, self._next = self._waiting, {}, None

            def put(connection: duckdb.DuckDBPyConnection) -> None:
                directory.put_agents(connection, [agent for agent, _ in taken.values()])
                directory.put_services(connection, {agent_id: seen for agent_id, (_, seen) in taken.items()})

            await self._control.write(put)
