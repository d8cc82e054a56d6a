"""Many hosts: some refuse, some move, and they are asked no more often than the colony can take."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.running_colony import attach_request, eventually, running_colony, stored, table
from support.synthetic_agent import SyntheticAgent

from coral.client.colony import ColonyClient
from coral.model.errors import FailedPrecondition, InvalidArgument
from coral.wire._generated.colony.v1 import registry_pb2, registry_pb2_grpc


def test_an_agent_that_moves(tmp_path: Path) -> None:
    """An agent that registers in the same life at another address keeps its collector: every event is stored, each once."""

    async def run() -> None:
        async with (
            running_colony(tmp_path / "state") as colony,
            SyntheticAgent("web-1") as agent,
            ColonyClient(colony) as client,
        ):
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            collector = agent.only
            collector.emit([1000] * 10)
            await stored(client, session_id, 10)
            before = agent.address
            await agent.kill()
            collector.emit([1000] * 5)  # while nobody reaches it
            agent.address = "127.0.0.1:0"
            await agent.start()
            assert agent.address != before
            await agent.report_to(colony)
            collector.emit([1000] * 5)
            session = await stored(client, session_id, 20)
            assert [(one.collector_id, one.status) for one in session.collectors] == [(collector.collector_id, "active")]
            assert not session.ledger.unknown_intervals
            sequences = [
                row["sequence"] for row in await table(client, "SELECT sequence FROM uprobe_events ORDER BY sequence")
            ]
            assert sequences == list(range(1, 21))
            assert [one.address for one in await client.agents()] == [agent.address]

    asyncio.run(run())


def test_a_new_life_at_another_address(tmp_path: Path) -> None:
    """An agent that comes back as another life elsewhere gets the session anew there; what is unknown is said, once."""

    async def run() -> None:
        async with (
            running_colony(tmp_path / "state") as colony,
            SyntheticAgent("web-1") as agent,
            ColonyClient(colony) as client,
        ):
            await agent.report_to(colony)
            session_id = (await client.attach(attach_request())).session_id
            agent.only.emit([1000] * 3)
            await stored(client, session_id, 3)
            await agent.kill()
            agent.address = "127.0.0.1:0"
            await agent.come_back(colony)
            await eventually(lambda: _has(agent))
            agent.only.emit([1000] * 4)
            session = await stored(client, session_id, 7)
            assert [(one.agent_id, one.status) for one in session.collectors] == [("web-1", "failed"), ("web-1", "active")]
            assert (session.status, len(session.ledger.unknown_intervals)) == ("active", 1)

    asyncio.run(run())


def test_some_hosts_refuse(tmp_path: Path) -> None:
    """The hosts that attach make the session, each with its own instances; the others are named with what they said."""

    async def run() -> None:
        names = [f"web-{number}" for number in range(1, 6)]
        async with running_colony(tmp_path / "state") as colony, ColonyClient(colony) as client:
            agents = [SyntheticAgent(name) for name in names]
            try:
                for agent in agents:
                    await agent.start()
                    await agent.report_to(colony)
                agents[1].refuse = FailedPrecondition("its image does not decode.")
                agents[3].attached = False
                response = await client.attach(attach_request())
                assert response.error == "web-2: its image does not decode."
                session = await client.session(response.session_id)
                assert session.reason == response.error
                assert sorted((one.agent_id, one.status, len(one.instances)) for one in session.collectors) == [
                    ("web-1", "active", 1), ("web-3", "active", 1), ("web-4", "pending", 0), ("web-5", "active", 1),
                ]  # fmt: skip
                alone = await client.attach(attach_request(function="main.Other", agent_id="web-3"))
                narrowed = await client.session(alone.session_id)
                assert [one.agent_id for one in narrowed.collectors] == ["web-3"]
            finally:
                for agent in agents:
                    await agent.kill()

    asyncio.run(run())


def test_a_host_that_is_away(tmp_path: Path) -> None:
    """Who attaches is told which hosts had the service a moment ago and are offline; they join when they are back."""

    async def run() -> None:
        async with (
            running_colony(tmp_path / "state", offline_after_ms=300) as colony,
            SyntheticAgent("web-1") as here,
            SyntheticAgent("web-2") as away,
            ColonyClient(colony) as client,
        ):
            for agent in (here, away):
                await agent.report_to(colony)
            await away.kill()
            await eventually(lambda: _offline(client, "web-2"))
            response = await client.attach(attach_request())
            assert response.error == "Offline, and taken in when back: web-2."
            assert (await client.attach(attach_request(function="main.Other", agent_id="web-1"))).error == ""
            await away.come_back(colony)
            await eventually(lambda: _has(away))

    asyncio.run(run())


def test_the_colony_sets_the_pace(tmp_path: Path) -> None:
    """Five agents of a colony that takes one heartbeat a second are asked for one in 5 s, and are online with that."""

    async def run() -> None:
        settings: dict[str, Any] = {"heartbeats_per_s": 1, "heartbeat_ms": 100, "offline_after_ms": 100}
        async with running_colony(tmp_path / "state", **settings) as colony, ColonyClient(colony) as client:
            registered = [await client.register(_registration(f"web-{number}")) for number in range(5)]
            assert [one.heartbeat_ms for one in registered] == [1000, 2000, 3000, 4000, 5000]
            beat = registry_pb2.HeartbeatRequest(agent_id="web-0", epoch=registered[0].epoch)
            answer = await client.heartbeat(beat)
            assert (answer.register_again, answer.heartbeat_ms) == (False, 5000)
            await asyncio.sleep(0.3)
            assert [one.status for one in await client.agents()] == ["online"] * 5

    asyncio.run(run())


def test_pages_of_agents_and_services(tmp_path: Path) -> None:
    """A page has as many as asked for and the token of the next, also when some went meanwhile; without a size it is all."""

    async def run() -> None:
        async with running_colony(tmp_path / "state", offline_after_ms=60_000) as colony, ColonyClient(colony) as client:
            for number in range(5):
                await client.register(_registration(f"web-{number}", "cart", "shop"))
            stub = registry_pb2_grpc.RegistryServiceStub(client.channel)
            pages = [await stub.ListAgents(registry_pb2.ListAgentsRequest(page_size=2))]
            while pages[-1].next_page_token:
                token = pages[-1].next_page_token
                pages.append(await stub.ListAgents(registry_pb2.ListAgentsRequest(page_size=2, page_token=token)))
            assert [[one.agent_id for one in page.agents] for page in pages] == [
                ["web-0", "web-1"],
                ["web-2", "web-3"],
                ["web-4"],
            ]
            assert len((await stub.ListAgents(registry_pb2.ListAgentsRequest())).agents) == 5
            first = await stub.ListServices(registry_pb2.ListServicesRequest(page_size=3))
            rest = await stub.ListServices(registry_pb2.ListServicesRequest(page_size=10, page_token=first.next_page_token))
            assert [(one.name, one.agent_id) for one in (*first.services, *rest.services)] == [
                (name, f"web-{number}") for name in ("cart", "shop") for number in range(5)
            ]
            assert (len(await client.services()), len(await client.services("shop")), rest.next_page_token) == (10, 5, "")
            with pytest.raises(InvalidArgument, match="does not belong to this query"):
                request = registry_pb2.ListServicesRequest(name="shop", page_size=3, page_token=first.next_page_token)
                await client.call(stub.ListServices, request)

    asyncio.run(run())


async def _offline(client: ColonyClient, agent_id: str) -> bool:
    return any(one.agent_id == agent_id and one.status == "offline" for one in await client.agents())


async def _has(agent: SyntheticAgent) -> bool:
    return len(agent.collectors) == 1


def _registration(agent_id: str, *services: str) -> registry_pb2.RegisterAgentRequest:
    return registry_pb2.RegisterAgentRequest(
        agent_id=agent_id,
        address="127.0.0.1:9",
        boot_id="life-1",
        services=[registry_pb2.ServiceInfo(name=name, instances=1, rule="systemd") for name in services],
    )
