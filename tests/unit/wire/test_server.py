"""The server that both daemons use, over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from coral.model.errors import CoralError, FailedPrecondition, Internal, InvalidArgument, NotFound, Unimplemented
from coral.wire._generated.mesh.v1 import ebpf_pb2, ebpf_pb2_grpc
from coral.wire.address import require_loopback
from coral.wire.errors import from_rpc
from coral.wire.server import Server

SERVICE = "coral.mesh.v1.DebugService"


class Servicer(ebpf_pb2_grpc.DebugServiceServicer):
    """Fails in each way that a handler can."""

    async def StopUprobeCollector(self, request: Any, context: Any) -> Any:
        """With an error that was meant."""
        raise NotFound("There is no such collector.", hint="Look again.", details={"nearest": "abc"})

    async def StartUprobeCollector(self, request: Any, context: Any) -> Any:
        """With one that was not."""
        raise ZeroDivisionError("oops")

    async def StreamUprobeEvents(self, request: Any, context: Any) -> AsyncIterator[ebpf_pb2.UprobeEventBatch]:
        """After its first message."""
        yield ebpf_pb2.UprobeEventBatch(last_sequence=3)
        raise InvalidArgument("Enough.")


@asynccontextmanager
async def running() -> AsyncIterator[tuple[str, grpc.aio.Channel]]:
    """A server and a channel to it."""
    server = Server()
    ebpf_pb2_grpc.add_DebugServiceServicer_to_server(Servicer(), server.grpc)
    address = await server.start("127.0.0.1:0", services=[SERVICE], flag="--listen")
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield address, channel
    finally:
        await server.stop(0)


async def failure(call: Any) -> CoralError:
    """The error of a call, as a client sees it."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc(caught.value, peer="The server")


def test_an_error_arrives_with_all_its_parts() -> None:
    """Code, message, hint and details of a handler's error are the same at the client."""

    async def scenario() -> CoralError:
        async with running() as (_, channel):
            return await failure(
                ebpf_pb2_grpc.DebugServiceStub(channel).StopUprobeCollector(ebpf_pb2.StopUprobeCollectorRequest())
            )

    error = asyncio.run(scenario())
    assert type(error) is NotFound
    assert (error.message, error.hint, error.details) == ("There is no such collector.", "Look again.", {"nearest": "abc"})


def test_a_defect_is_internal() -> None:
    """Any other exception is INTERNAL, and names the RPC."""

    async def scenario() -> CoralError:
        async with running() as (_, channel):
            return await failure(
                ebpf_pb2_grpc.DebugServiceStub(channel).StartUprobeCollector(ebpf_pb2.StartUprobeCollectorRequest())
            )

    error = asyncio.run(scenario())
    assert type(error) is Internal
    assert f"/{SERVICE}/StartUprobeCollector failed: ZeroDivisionError: oops" in error.message


def test_bytes_that_are_no_message_are_an_invalid_argument() -> None:
    """Garbage is the caller's mistake, not the server's."""

    async def scenario() -> CoralError:
        async with running() as (_, channel):
            return await failure(channel.unary_unary(f"/{SERVICE}/StopUprobeCollector")(b"\xff\xff\xff"))

    error = asyncio.run(scenario())
    assert type(error) is InvalidArgument
    assert "no message of" in error.message


def test_a_method_that_is_not_there_names_those_that_are() -> None:
    """Whoever asks the wrong server learns which one it is."""

    async def scenario() -> list[CoralError]:
        async with running() as (_, channel):
            path = "/coral.colony.v1.DebugService/AttachUprobe"
            stream = channel.unary_stream(path)(b"")
            return [await failure(channel.unary_unary(path)(b"\xff")), await failure(stream.read())]

    for error in asyncio.run(scenario()):
        assert type(error) is Unimplemented
        assert "no method /coral.colony.v1.DebugService/AttachUprobe here" in error.message
        assert f"this server has {SERVICE}, grpc.health.v1.Health." in error.message
        assert "right server" in error.hint


def test_a_stream_can_fail_after_its_first_message() -> None:
    """What was sent before arrives, then the error."""

    async def scenario() -> tuple[int, str]:
        async with running() as (_, channel):
            stream = ebpf_pb2_grpc.DebugServiceStub(channel).StreamUprobeEvents(ebpf_pb2.StreamUprobeEventsRequest())
            first = await stream.read()
            return first.last_sequence, (await failure(stream.read())).code

    assert asyncio.run(scenario()) == (3, "INVALID_ARGUMENT")


def test_health_and_reflection_answer() -> None:
    """Both serve every service that the server has."""

    async def scenario() -> tuple[list[int], list[str]]:
        async with running() as (address, channel):
            stub = health_pb2_grpc.HealthStub(channel)
            states = [(await stub.Check(health_pb2.HealthCheckRequest(service=name))).status for name in ("", SERVICE)]
            return states, await asyncio.to_thread(_reflected, address)

    states, names = asyncio.run(scenario())
    assert states == [health_pb2.HealthCheckResponse.SERVING] * 2
    assert set(names) >= {SERVICE, "grpc.health.v1.Health"}


def _reflected(address: str) -> list[str]:
    with grpc.insecure_channel(address) as channel:
        return list(ProtoReflectionDescriptorDatabase(channel).get_services())


def test_a_taken_port_names_the_flag() -> None:
    """A second server on the port fails at once; nothing is shared silently."""

    async def scenario() -> None:
        async with running() as (address, _):
            await Server().start(address, services=[], flag="--colony-port")

    with pytest.raises(FailedPrecondition, match=r"the port is taken\. Choose another with --colony-port"):
        asyncio.run(scenario())


def test_an_address_of_another_host_is_not_called_taken() -> None:
    """Why an address cannot be had is the system's reason, not a guess."""

    async def scenario() -> None:
        await Server().start("192.0.2.1:1", services=[], flag="--listen")

    with pytest.raises(FailedPrecondition, match=r"192\.0\.2\.1:1: Cannot assign requested address\."):
        asyncio.run(scenario())


@pytest.mark.parametrize("address", ["0.0.0.0:1", "10.0.0.1:80", "[::]:80", "example.com:80"])
def test_addresses_beyond_this_host_are_refused(address: str) -> None:
    """Nothing is served to other hosts while nobody is authenticated."""
    with pytest.raises(FailedPrecondition, match="reached from other hosts"):
        require_loopback(address)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:80", "[::1]:80"])
def test_loopback_is_served(address: str) -> None:
    """Loopback addresses of both families pass."""
    require_loopback(address)
