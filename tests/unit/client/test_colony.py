"""The colony's client, against a real server in this process."""

from __future__ import annotations

import asyncio

import pyarrow as pa
import pytest
from support.synthetic_colony import START_NS, SyntheticColony

from coral.client.channel import actor
from coral.client.colony import ColonyClient
from coral.events.batch import decode
from coral.model.errors import DeadlineExceeded, InvalidArgument, NotFound, Unavailable
from coral.wire import convert
from coral.wire._generated.colony.v1 import debug_pb2, registry_pb2

FAR_NS = 4_000_000_000 * 1_000_000_000


def test_attach_detach_and_who_asked() -> None:
    """A session starts, is found, ends; the colony is told who asked each time."""

    async def run() -> None:
        async with SyntheticColony() as colony, ColonyClient(colony.address) as client:
            request = debug_pb2.AttachUprobeRequest(
                service_name="checkout", function_name="main.Pay", duration=convert.duration(5_000_000_000)
            )
            attached = await client.attach(request)
            assert (await client.session(attached.session_id)).status == "active"
            assert (await client.detach(attached.session_id)).success
            assert (await client.session(attached.session_id)).status == "detached"
            assert {who for who, _ in colony.requests} == {actor()}

    asyncio.run(run())


def test_what_the_colony_refuses_arrives_whole() -> None:
    """The error of the other side arrives with its kind, its message and its hint."""

    async def run() -> None:
        async with SyntheticColony() as colony, ColonyClient(colony.address) as client:
            with pytest.raises(NotFound) as caught:
                await client.attach(debug_pb2.AttachUprobeRequest(service_name="chekout", function_name="f"))
            assert (caught.value.message, caught.value.hint) == ("There is no service 'chekout'.", "Did you mean checkout?")

    asyncio.run(run())


def test_nobody_there() -> None:
    """An address without a colony is reported with what to do about it."""

    async def run() -> None:
        async with SyntheticColony() as colony:
            address = colony.address
        async with ColonyClient(address) as client:
            with pytest.raises(Unavailable) as caught:
                await client.agents()
        assert caught.value.message == f"The colony at {address} cannot be reached: Connection refused."
        hint = "Start one with `coral dev`, or give --colony HOST:PORT, and --ca FILE for one that has TLS."
        assert caught.value.hint == hint

    asyncio.run(run())


def test_silence_is_a_deadline() -> None:
    """A peer that accepts and says nothing does not hold the caller beyond the timeout."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # holding the writer, which from Python 3.13 on closes the connection when it is forgotten
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(listen, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, ColonyClient(f"127.0.0.1:{port}") as client:
            with pytest.raises(DeadlineExceeded):
                await client.session("S1", timeout_s=0.2)

    asyncio.run(run())


@pytest.mark.parametrize("address", ["", "localhost", "localhost:", ":1", "h:99999", "h:x"])
def test_an_address_must_be_one(address: str) -> None:
    """What is not HOST:PORT is refused before anything is tried."""

    async def run() -> None:
        with pytest.raises(InvalidArgument):
            ColonyClient(address)

    asyncio.run(run())


def test_sessions_are_read_page_by_page() -> None:
    """The listing goes on until the colony has no more, and keeps the order."""

    async def run() -> None:
        async with SyntheticColony() as colony, ColonyClient(colony.address) as client:
            for index in range(5):
                colony.session(session_id=f"S{index}", service="checkout", function="f", expires_at_ns=FAR_NS)
            assert [session.session_id async for session in client.sessions()] == ["S0", "S1", "S2", "S3", "S4"]
            assert [session async for session in client.sessions(status="expired")] == []

    asyncio.run(run())


def test_follow_resumes_after_a_sequence() -> None:
    """The stream starts behind what was seen, brings what comes later, and ends with the session."""

    async def run() -> None:
        async with SyntheticColony() as colony, ColonyClient(colony.address) as client:
            session = colony.session(
                session_id="S1", service="checkout", function="f", expires_at_ns=FAR_NS, durations_ns=[10, 20, 30]
            )
            seen: list[int] = []
            async for batch in client.follow("S1", after={"C1": 1}, timeout_s=10):
                seen += decode(batch.arrow_ipc).column("duration_ns").to_pylist()
                if len(seen) == 2:
                    session.durations_ns.append(40)
                    session.end("detached", "user")
            assert seen == [20, 30, 40]
            assert batch.final and batch.status == "detached"

    asyncio.run(run())


def test_tables_services_agents() -> None:
    """The registry's lists and a query's table arrive as the colony gave them."""

    async def run() -> None:
        async with SyntheticColony() as colony, ColonyClient(colony.address) as client:
            colony.table = pa.table({"n": [1, 2]})
            assert await client.query_database("select n") == (colony.table, False)
            assert [(one.name, one.agent_id) for one in await client.services("pricing")] == [("pricing", "agent-1")]
            [agent] = await client.agents()
            assert convert.timestamp_ns(agent.last_seen_at) == START_NS + 500_000_000

    asyncio.run(run())


def test_an_agent_reports() -> None:
    """Registration gives an epoch; a heartbeat of another one is told to register again. The agent says who it is."""

    async def run() -> None:
        async with SyntheticColony() as colony, ColonyClient(colony.address, caller="agent a") as client:
            registered = await client.register(registry_pb2.RegisterAgentRequest(agent_id="a", address="127.0.0.1:8080"))
            assert (registered.epoch, registered.heartbeat_ms) == (7, 250)
            answers = [await client.heartbeat(registry_pb2.HeartbeatRequest(agent_id="a", epoch=epoch)) for epoch in (7, 8)]
            assert [answer.register_again for answer in answers] == [False, True]
            assert {who for who, _ in colony.requests} == {"agent a"}

    asyncio.run(run())
