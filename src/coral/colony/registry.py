"""Which agents there are, whether they are heard of, and which services each of them sees."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from rapidfuzz import fuzz, process

from coral.colony.presence import Presence
from coral.colony.registrations import Registrations
from coral.colony.store import directory
from coral.colony.store.database import Database
from coral.model.errors import NotFound, Unavailable
from coral.model.service import Agent, Service

_NEAREST = 5
_LIKENESS = 60.0
_MISSED = 2.5
"""After so many intervals without a heartbeat an agent is offline: one may get lost."""
ASKED_AT_RANDOM = 256
"""How many agents are asked for a service that none of them has reported; where there are more, nobody is."""
SEEN_FLUSH_S = 5.0
_LATE_S = 0.5
_MOST_STRETCH = 8.0
"""How much less often agents are asked, at most, by a colony that does not keep up."""


@dataclass(slots=True)
class _Entry:
    agent: Agent
    services: tuple[Service, ...]
    epoch: int
    heard_at: float  # of the monotonic clock
    told_s: float  # the longest interval that it may go by
    digest: bytes = b""  # of the message with its services
    stored: bool = False  # whether the control file has it


class Registry:
    """Kept in memory, written through to the control file, so that it survives a restart."""

    def __init__(
        self,
        control: Database,
        *,
        offline_after_s: float,
        heartbeat_ms: int = 1000,
        heartbeats_per_s: float = 333.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Knows nobody until ``load``.

        Args:
            control: The control file.
            offline_after_s: Whoever was silent for so long, and for a few of its intervals, is offline.
            heartbeat_ms: How often an agent is asked to report.
            heartbeats_per_s: How many may come in a second: where there are more agents, they are asked less often.
            monotonic: A clock, in seconds.
        """
        self._control = control
        self._registrations = Registrations(control)
        self._offline_after_s = offline_after_s
        self._heartbeat_ms = heartbeat_ms
        self._heartbeats_per_s = heartbeats_per_s
        self._monotonic = monotonic
        self._entries: dict[str, _Entry] = {}
        self._seeing: defaultdict[str, set[str]] = defaultdict(set)
        self._online = 0
        self._presence = Presence()
        self._stretch = 1.0
        self._flushed_at = float("inf")
        self._unwritten: dict[str, int] = {}
        self._changed: set[str] = set()
        self._listeners: list[Callable[[str], None]] = []

    def on_services(self, listener: Callable[[str], None]) -> None:
        """Calls ``listener`` with the id of each agent that registers, or whose services have other processes than before."""
        self._listeners.append(listener)

    async def load(self) -> None:
        """Reads what was known. An agent that was heard of just before the restart counts as online until it is overdue."""
        agents, services = await self._control.read(directory.load)
        of_agent: defaultdict[str, list[Service]] = defaultdict(list)
        for service in services:
            of_agent[service.agent_id].append(service)
        now = self._monotonic()
        self._online = len(agents)
        told_s = self.heartbeat_ms() / 1000
        for agent in agents:
            silent_s = max(0.0, (time.time_ns() - agent.last_seen_at_ns) / 1e9)
            # What is written lags behind by up to the flush interval.
            heard_at = now - max(0.0, silent_s - SEEN_FLUSH_S)
            entry = _Entry(agent=agent, services=(), epoch=0, heard_at=heard_at, told_s=told_s, stored=True)
            self._entries[agent.agent_id] = entry
            self._see(entry, tuple(of_agent[agent.agent_id]))
        self._count()

    def heartbeat_ms(self) -> int:
        """How often an agent is to report now: less often where they are many, or where the colony does not keep up."""
        return round(self._stretch * max(self._heartbeat_ms, self._online / self._heartbeats_per_s * 1000))

    async def register(self, agent: Agent, services: Sequence[Service], *, digest: bytes = b"") -> tuple[int, str]:
        """Takes an agent in, or its new life.

        Args:
            agent: It.
            services: What it sees.
            digest: Of the message that said so, for ``is_unchanged``.

        Returns:
            The epoch that its heartbeats carry, and the boot id that it had before; empty when it is new.
        """
        known = self._entries.get(agent.agent_id)
        # Wall clock, so that an epoch from before a restart of the colony is never taken for a current one.
        epoch = max(time.time_ns(), known.epoch + 1 if known else 0)
        seen = tuple(services)
        self._online += known is None or not self._is_online(known)
        told_s = self.heartbeat_ms() / 1000
        entry = _Entry(agent=agent, services=(), epoch=epoch, heard_at=self._monotonic(), told_s=told_s, digest=digest)
        self._entries[agent.agent_id] = entry
        if (
            known is not None and known.stored and _same_row(known.agent, agent)
        ):  # only the colony is new: ten thousand come at once then
            self._unwritten[agent.agent_id] = agent.last_seen_at_ns
            entry.services, entry.stored = known.services, True
            if seen != known.services:
                self._see(entry, seen)
                self._changed.add(agent.agent_id)
        else:
            entry.services = known.services if known is not None else ()
            self._see(entry, seen)
            await self._registrations.write(agent, seen)
            entry.stored = True
        self._tell(agent.agent_id)
        return epoch, known.agent.boot_id if known else ""

    def is_unchanged(self, agent_id: str, digest: bytes) -> bool:
        """Whether an agent said the same of its services in its last heartbeat."""
        entry = self._entries.get(agent_id)
        return entry is not None and entry.digest == digest

    def heartbeat(
        self, agent_id: str, epoch: int, services: Sequence[Service] | None, *, digest: bytes = b"", lockdown: str = ""
    ) -> bool:
        """Notes that an agent lives, and what it sees now.

        Args:
            agent_id: Which.
            epoch: Of its registration.
            services: What it sees; None for the same as before.
            digest: Of the message that said so, for ``is_unchanged``.
            lockdown: Since when and why it attaches nothing.

        Returns:
            False when the epoch is not the current one: it has to register again.
        """
        entry = self._entries.get(agent_id)
        if entry is None or entry.epoch != epoch:
            return False
        now_ns = time.time_ns()
        entry.heard_at = self._monotonic()
        entry.told_s = max(entry.told_s, self.heartbeat_ms() / 1000)
        entry.agent = replace(entry.agent, last_seen_at_ns=now_ns, lockdown=lockdown)
        self._unwritten[agent_id] = now_ns
        if services is not None:
            entry.digest = digest
            if (seen := tuple(services)) != entry.services:
                self._see(entry, seen)
                self._changed.add(agent_id)
                self._tell(agent_id)
        return True

    def expel(self, agent_id: str) -> None:
        """Takes an agent for offline until it registers anew: it was put out."""
        entry = self._entries.get(agent_id)
        if entry is not None:
            entry.heard_at, entry.epoch = float("-inf"), 0

    def flush(self) -> None:
        """Queues what heartbeats brought for writing; they are too many to be written one by one. Called every few seconds:
        by how much it comes too late, the colony knows that it has too much to do.
        """
        now = self._monotonic()
        late = now - self._flushed_at - SEEN_FLUSH_S > _LATE_S
        self._stretch = min(_MOST_STRETCH, 2 * self._stretch) if late else max(1.0, self._stretch / 1.5)
        self._flushed_at = now
        self._count()
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
        return list(self.services_after(name))

    def services_after(self, name: str = "", after: tuple[str, str] = ("", "")) -> Iterator[Service]:
        """The same one by one, from behind the one whose name and agent are ``after``: a page costs no more than itself."""
        for each in [name] if name else sorted(self._seeing):
            if each < after[0]:
                continue
            for entry in self._seers(each):
                if self._is_online(entry) and (each, entry.agent.agent_id) > after:
                    yield from (service for service in entry.services if service.name == each)

    def service_names(self) -> set[str]:
        """The names of the services that online agents see."""
        return {
            name
            for name, seers in self._seeing.items()
            if any(self._is_online(self._entries[agent_id]) for agent_id in seers)
        }

    def hosts_of(self, service_name: str) -> list[Agent]:
        """The online agents that see a live instance of a service; of a service that no online agent knows, all of them,
        since a process that started a moment ago is not in a heartbeat yet.

        Raises:
            Unavailable: No agent is online.
            NotFound: No agent knows it, and they are too many to ask all of them.
        """
        hosts = [entry for entry in self._seers(service_name) if self._is_online(entry) and _sees_live(entry, service_name)]
        if hosts:
            return [self._view(entry) for entry in hosts]
        online = [entry for _, entry in sorted(self._entries.items()) if self._is_online(entry)]
        if not online:
            raise Unavailable("No agent is online.", hint="Start one with `coral agent start`, or both with `coral dev`.")
        if len(online) > ASKED_AT_RANDOM and not self._seers(service_name):
            hint = did_you_mean(service_name, self.service_names())
            raise NotFound(
                f"No agent has reported a service {service_name!r}, and {len(online):,} are too many to ask each of them.",
                hint=f"{hint} Where it has just started, try again in a second, or name the host with --agent.".strip(),
            )
        return [self._view(entry) for entry in online]

    def may_host(self, service_name: str) -> list[str]:
        """The agents that saw a service when they were last heard of; all agents if none did."""
        hosts = [entry.agent.agent_id for entry in self._seers(service_name) if _sees_live(entry, service_name)]
        return hosts or list(self._entries)

    def sees(self, agent_id: str, service_name: str) -> bool:
        """Whether an agent is online and sees a live instance of a service."""
        entry = self._entries.get(agent_id)
        return entry is not None and self._is_online(entry) and _sees_live(entry, service_name)

    def offline_hosts_of(self, service_name: str, *, heard_within_s: float = math.inf) -> list[str]:
        """The ids of the agents that saw a live instance of a service before they went offline.

        Args:
            service_name: Of the service.
            heard_within_s: Those only that said something in so many seconds: a host that is gone for good is no news.
        """
        since = self._monotonic() - heard_within_s
        return [
            entry.agent.agent_id
            for entry in self._seers(service_name)
            if not self._is_online(entry) and entry.heard_at >= since and _sees_live(entry, service_name)
        ]

    def _seers(self, service_name: str) -> list[_Entry]:
        """Who reports a service, by name: also without an instance, and also who is offline."""
        return [self._entries[agent_id] for agent_id in sorted(self._seeing.get(service_name, ()))]

    def _see(self, entry: _Entry, services: tuple[Service, ...]) -> None:
        """Replaces what an agent sees."""
        agent_id = entry.agent.agent_id
        before, after = ({service.name for service in each} for each in (entry.services, services))
        for name in after - before:
            self._seeing[name].add(agent_id)
        for name in before - after:
            self._seeing[name].discard(agent_id)
            if not self._seeing[name]:
                del self._seeing[name]
        entry.services = services

    def _count(self) -> None:
        online = {agent_id for agent_id, entry in self._entries.items() if self._is_online(entry)}
        self._online = len(online)
        self._presence.note(online, known=len(self._entries))

    def _tell(self, agent_id: str) -> None:
        for listener in self._listeners:
            listener(agent_id)

    def _is_online(self, entry: _Entry) -> bool:
        return self._monotonic() - entry.heard_at < max(self._offline_after_s, _MISSED * entry.told_s)

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


def _sees_live(entry: _Entry, name: str) -> bool:
    return any(service.name == name and service.instances > 0 for service in entry.services)


def _same_row(one: Agent, other: Agent) -> bool:
    """Whether two are the same in the control file, but for when they were last seen."""
    return one == replace(other, last_seen_at_ns=one.last_seen_at_ns, online=one.online, lockdown=one.lockdown)
