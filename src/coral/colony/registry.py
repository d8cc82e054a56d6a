"""Which agents there are, whether they are heard of, and which services each of them sees."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import duckdb
from rapidfuzz import fuzz, process

from coral.colony.store import directory
from coral.colony.store.database import Database
from coral.model.errors import NotFound, Unavailable
from coral.model.service import Agent, Service

_NEAREST = 5
_LIKENESS = 60.0
SEEN_FLUSH_S = 5.0


@dataclass(slots=True)
class _Entry:
    agent: Agent
    services: tuple[Service, ...]
    epoch: int
    heard_at: float  # of the monotonic clock


class Registry:
    """Kept in memory, written through to the control file, so that it survives a restart."""

    def __init__(self, control: Database, *, offline_after_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._control = control
        self._offline_after_s = offline_after_s
        self._monotonic = monotonic
        self._entries: dict[str, _Entry] = {}
        self._unwritten: dict[str, int] = {}
        self._changed: set[str] = set()
        self._listeners: list[Callable[[str], None]] = []

    def on_services(self, listener: Callable[[str], None]) -> None:
        """Calls ``listener`` with the id of each agent that registers, or whose services have other processes than before."""
        self._listeners.append(listener)

    async def load(self) -> None:
        """Reads what was known. An agent that was heard of just before the restart counts as online until it is overdue."""
        agents, services = await self._control.read(directory.load)
        now = self._monotonic()
        for agent in agents:
            silent_s = max(0.0, (time.time_ns() - agent.last_seen_at_ns) / 1e9)
            # What is written lags behind by up to the flush interval.
            heard_at = now - max(0.0, silent_s - SEEN_FLUSH_S)
            mine = tuple(service for service in services if service.agent_id == agent.agent_id)
            self._entries[agent.agent_id] = _Entry(agent=agent, services=mine, epoch=0, heard_at=heard_at)

    async def register(self, agent: Agent, services: Sequence[Service]) -> tuple[int, str]:
        """Takes an agent in, or its new life.

        Returns:
            The epoch that its heartbeats carry, and the boot id that it had before; empty when it is new.
        """
        known = self._entries.get(agent.agent_id)
        # Wall clock, so that an epoch from before a restart of the colony is never taken for a current one.
        epoch = max(time.time_ns(), known.epoch + 1 if known else 0)
        seen = tuple(services)
        self._entries[agent.agent_id] = _Entry(agent=agent, services=seen, epoch=epoch, heard_at=self._monotonic())

        def write(connection: duckdb.DuckDBPyConnection) -> None:
            directory.put_agent(connection, agent)
            directory.put_services(connection, {agent.agent_id: seen})

        await self._control.write(write)
        self._tell(agent.agent_id)
        return epoch, known.agent.boot_id if known else ""

    def heartbeat(self, agent_id: str, epoch: int, services: Sequence[Service], *, lockdown: str = "") -> bool:
        """Notes that an agent lives, and what it sees now.

        Returns:
            False when the epoch is not the current one: it has to register again.
        """
        entry = self._entries.get(agent_id)
        if entry is None or entry.epoch != epoch:
            return False
        entry.heard_at = self._monotonic()
        now_ns = time.time_ns()
        entry.agent = replace(entry.agent, last_seen_at_ns=now_ns, lockdown=lockdown)
        self._unwritten[agent_id] = now_ns
        seen = tuple(services)
        if seen != entry.services:
            entry.services = seen
            self._changed.add(agent_id)
            self._tell(agent_id)
        return True

    def expel(self, agent_id: str) -> None:
        """Takes an agent for offline until it registers anew: it was put out."""
        entry = self._entries.get(agent_id)
        if entry is not None:
            entry.heard_at, entry.epoch = self._monotonic() - self._offline_after_s, 0

    def flush(self) -> None:
        """Queues what heartbeats brought for writing; they are too many to be written one by one."""
        last_seen, self._unwritten = self._unwritten, {}
        seen = {agent_id: self._entries[agent_id].services for agent_id in self._changed}
        self._changed.clear()
        if last_seen:
            self._control.post(lambda connection: directory.put_last_seen(connection, last_seen), what="last_seen_at")
        if seen:
            self._control.post(lambda connection: directory.put_services(connection, seen), what="services")

    def agents(self) -> list[Agent]:
        """All agents, by name."""
        return [self._view(entry) for _, entry in sorted(self._entries.items())]

    def agent(self, agent_id: str) -> Agent:
        """One agent.

        Raises:
            NotFound: There is none of that name; the hint has the nearest ones.
        """
        entry = self._entries.get(agent_id)
        if entry is None:
            raise NotFound(
                f"There is no agent {agent_id!r}.",
                hint=did_you_mean(agent_id, set(self._entries)) or "`coral agent list` has all.",
            )
        return self._view(entry)

    def online(self, agent_id: str) -> Agent:
        """One agent that can be reached.

        Raises:
            NotFound: There is none of that name.
            Unavailable: It is offline.
        """
        agent = self.agent(agent_id)
        if not agent.online:
            silent_s = self._monotonic() - self._entries[agent_id].heard_at
            raise Unavailable(
                f"Agent {agent_id!r} at {agent.address} is offline: nothing was heard of it for {silent_s:.0f} s.",
                hint="Start it again with `coral agent start`.",
            )
        return agent

    def services(self, name: str = "") -> list[Service]:
        """What online agents see, by name and agent; only ``name`` unless that is empty."""
        found = [
            service
            for entry in self._entries.values()
            if self._is_online(entry)
            for service in entry.services
            if name in ("", service.name)
        ]
        return sorted(found, key=lambda service: (service.name, service.agent_id))

    def hosts_of(self, service_name: str) -> list[Agent]:
        """The online agents that see a live instance of a service; of a service that no online agent knows, all of them,
        since a process that started a moment ago is not in a heartbeat yet.

        Raises:
            Unavailable: No agent is online.
        """
        online = [entry for _, entry in sorted(self._entries.items()) if self._is_online(entry)]
        if not online:
            raise Unavailable("No agent is online.", hint="Start one with `coral agent start`, or both with `coral dev`.")
        hosts = [entry for entry in online if any(_live(service, service_name) for service in entry.services)]
        return [self._view(entry) for entry in hosts or online]

    def may_host(self, service_name: str) -> list[str]:
        """The agents that saw a service when they were last heard of; all agents if none did."""
        hosts = [
            agent_id for agent_id, entry in self._entries.items() if any(_live(one, service_name) for one in entry.services)
        ]
        return hosts or list(self._entries)

    def sees(self, agent_id: str, service_name: str) -> bool:
        """Whether an agent is online and sees a live instance of a service."""
        entry = self._entries.get(agent_id)
        return entry is not None and self._is_online(entry) and any(_live(each, service_name) for each in entry.services)

    def offline_hosts_of(self, service_name: str) -> list[str]:
        """The ids of the agents that saw a live instance of a service before they went offline."""
        return sorted(
            agent_id
            for agent_id, entry in self._entries.items()
            if not self._is_online(entry) and any(_live(service, service_name) for service in entry.services)
        )

    def _tell(self, agent_id: str) -> None:
        for listener in self._listeners:
            listener(agent_id)

    def _is_online(self, entry: _Entry) -> bool:
        return self._monotonic() - entry.heard_at < self._offline_after_s

    def _view(self, entry: _Entry) -> Agent:
        return replace(entry.agent, online=self._is_online(entry))


def nearest(name: str, candidates: set[str]) -> list[str]:
    """Up to five of ``candidates`` that are like ``name``, the most like first."""
    found = process.extract(name, sorted(candidates), scorer=fuzz.WRatio, limit=_NEAREST, score_cutoff=_LIKENESS)
    return [str(match[0]) for match in found]


def did_you_mean(name: str, candidates: set[str]) -> str:
    """A sentence with the nearest names; empty when there is none."""
    found = nearest(name, candidates)
    return f"Did you mean {', '.join(found)}?" if found else ""


def _live(service: Service, name: str) -> bool:
    return service.name == name and service.instances > 0
