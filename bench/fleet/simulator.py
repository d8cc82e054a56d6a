"""One process of simulated agents: ``python -m bench.fleet.simulator``.

It takes its part as a line of JSON, then a command a line, and answers each with a line: ``connect``, ``register`` (from then
on there are heartbeats, at the pace that the colony asks for), ``count``, ``forget``, ``registered``, ``events``, ``quit``.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc
from ulid import ULID

from bench.fleet.host import Host, Pulse
from bench.fleet.plan import SERVICE, Part
from coral.agent.pace import Pace
from coral.client.colony import ColonyClient
from coral.client.endpoint import Endpoint
from coral.model.errors import CoralError
from coral.telemetry.lifecycle import room_for
from coral.trust.authority import COLONY_DNS
from coral.wire._generated.colony.v1 import registry_pb2

_AT_ONCE = 64
_CALL_S = 5.0
_CONNECT_S = 30.0
_NOWHERE = "127.0.0.1:9"
_NAMES = 400
"""Different services in the whole fleet."""


@dataclass(slots=True)
class _Counts:
    beats: int = 0
    registrations: int = 0
    failures: int = 0
    taken_s: list[float] = field(default_factory=list)
    why: str = ""


class Simulator:
    """The agents of one part."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._counts = _Counts()
        self._pulse = Pulse()
        self._hosts = {agent_id: Host(agent_id, part, self._pulse) for agent_id in part.reached}
        self._clients: list[ColonyClient] = []
        self._living: list[asyncio.Task[None]] = []
        self._registered: set[str] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def connect(self) -> dict[str, Any]:
        """Opens the connections, and asks over each whether the colony is well: without a credential, as anybody may."""
        room_for(len(self._part.agent_ids) + 2 * len(self._hosts))
        for host in self._hosts.values():
            await host.start()
        certificates = self._part.certificates or {}
        if self._part.secured:
            endpoints = [self._endpoint(*certificates[agent_id]) for agent_id in self._part.agent_ids]
        else:
            endpoints = [Endpoint(address=self._part.colony)] * self._part.connections
        self._clients = [ColonyClient(endpoint, caller="agent:fleet") for endpoint in endpoints]
        await self._each(self._look, self._clients)
        return {"connections": len(self._clients)}

    async def register(self) -> dict[str, Any]:
        """Registers every agent, each of which sends heartbeats from then on."""
        lives = [self._life(number, agent_id) for number, agent_id in enumerate(self._part.agent_ids)]
        self._living = [asyncio.create_task(life) for life in lives]
        return await self.registered()

    async def registered(self) -> dict[str, Any]:
        """Waits until all are registered."""
        while len(self._registered) < len(self._part.agent_ids):  # noqa: ASYNC110  (thousands of tasks, one look)
            await asyncio.sleep(0.05)
        return self.count()

    def forget(self) -> dict[str, Any]:
        """Counts anew who is registered: the colony is about to be restarted."""
        self._registered.clear()
        return {}

    def count(self) -> dict[str, Any]:
        """What was counted since it was asked last, and what this process has used in all."""
        counts, self._counts = self._counts, _Counts()
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "beats": counts.beats,
            "registrations": counts.registrations,
            "failures": counts.failures,
            "taken_s": counts.taken_s,
            "why": counts.why,
            "cpu_s": used.ru_utime + used.ru_stime,
            "memory_bytes": used.ru_maxrss * 1024,
            "emitted": sum(host.emitted for host in self._hosts.values()),
        }

    def events(self) -> dict[str, Any]:
        """Has calls happen in what is attached from now on."""
        self._pulse.events_per_s, self._pulse.since = self._part.events_per_s, time.monotonic()
        return {}

    async def quit(self) -> dict[str, Any]:
        """Ends all."""
        for task in self._living:
            task.cancel()
        await asyncio.gather(*self._living, return_exceptions=True)
        await self._each(ColonyClient.close, self._clients)
        await self._each(Host.stop, list(self._hosts.values()))
        return {}

    def _endpoint(self, certificate: str, key: str) -> Endpoint:
        return Endpoint(
            address=self._part.colony,
            ca_pem=self._part.ca.encode(),
            certificate=(certificate.encode(), key.encode()),
            server_name=COLONY_DNS,
        )

    async def _each(self, work: Callable[[Any], Awaitable[None]], items: list[Any]) -> None:
        async def one(item: Any) -> None:
            async with self._slots:
                await work(item)

        await asyncio.gather(*map(one, items))

    async def _look(self, client: ColonyClient) -> None:
        stub: Any = health_pb2_grpc.HealthStub(client.channel)
        await client.call(stub.Check, health_pb2.HealthCheckRequest(), _CONNECT_S)

    async def _life(self, number: int, agent_id: str) -> None:
        """As ``coral.agent.registration`` lives, but for what a kernel is needed for."""
        client = self._clients[number % len(self._clients)]
        host = self._hosts.get(agent_id)
        pace, services = Pace(), self._services(agent_id)
        boot_id, epoch = host.boot_id if host else str(ULID()), 0
        while True:
            begun = time.perf_counter()
            try:
                if not epoch:
                    async with self._slots:
                        begun = time.perf_counter()
                        registered = await client.register(
                            registry_pb2.RegisterAgentRequest(
                                agent_id=agent_id, address=host.address if host else _NOWHERE, version="0.1.0",
                                hostname=f"{agent_id}.fleet.example", boot_id=boot_id, services=services,
                                kernel="6.18.44-cloud-amd64", methods=["uprobe_multi", "perf_event"],
                            ),
                            timeout_s=_CALL_S,
                        )  # fmt: skip
                    epoch = registered.epoch
                    self._counts.registrations += 1
                    self._registered.add(agent_id)
                    pace.registered()
                    pace.told(registered.heartbeat_ms)
                    await asyncio.sleep(pace.first_s())
                    continue
                beat = registry_pb2.HeartbeatRequest(
                    agent_id=agent_id, epoch=epoch, services=services, collectors=host.running if host else []
                )
                answer = await client.heartbeat(beat, timeout_s=_CALL_S)
            except CoralError as error:
                self._counts.failures += 1
                self._counts.why = str(error)
                await asyncio.sleep(pace.retry_s())
                continue
            self._counts.taken_s.append(time.perf_counter() - begun)
            self._counts.beats += 1
            if answer.register_again:
                epoch = 0
                continue
            pace.registered()
            pace.told(answer.heartbeat_ms)
            await asyncio.sleep(pace.next_s())

    def _services(self, agent_id: str) -> list[registry_pb2.ServiceInfo]:
        chosen = random.Random(agent_id).sample(range(_NAMES), self._part.services)
        names = [(f"service-{number:03}", 1 + number % 3) for number in sorted(chosen)]
        if agent_id in self._hosts:
            names.append((SERVICE, self._part.instances))
        return [registry_pb2.ServiceInfo(name=name, instances=count, rule="systemd") for name, count in names]


async def _serve() -> None:
    simulator = Simulator(Part.from_json(await asyncio.to_thread(sys.stdin.readline)))
    while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
        answer = getattr(simulator, word)()
        print(json.dumps(await answer if asyncio.iscoroutine(answer) else answer), flush=True)
        if word == "quit":
            return


if __name__ == "__main__":
    asyncio.run(_serve())
