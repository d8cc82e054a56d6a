"""What whoever can connect can make a server spend: connections, silence, metadata, messages. Over real sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coral.wire import server as served
from coral.wire._generated.mesh.v1 import ebpf_pb2, ebpf_pb2_grpc
from coral.wire.address import MAX_REQUEST_BYTES, split_address
from coral.wire.server import Server

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What every client of HTTP/2 says first (RFC 9113, section 3.4)."""


class Servicer(ebpf_pb2_grpc.DebugServiceServicer):
    """Knows no collector, and says so by an empty answer."""

    async def StopUprobeCollector(self, request: object, context: object) -> ebpf_pb2.StopUprobeCollectorResponse:
        """An empty answer."""
        return ebpf_pb2.StopUprobeCollectorResponse()


@asynccontextmanager
async def serving(*, max_connections: int = 4096) -> AsyncIterator[str]:
    """A server; yields its address."""
    server = Server(max_connections=max_connections)
    ebpf_pb2_grpc.add_DebugServiceServicer_to_server(Servicer(), server.grpc)
    address = await server.start("127.0.0.1:0", services=["coral.mesh.v1.DebugService"], flag="--listen")
    try:
        yield address
    finally:
        await server.stop(0)


async def healthy(address: str) -> bool:
    """Whether a new client is answered."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=3)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def closed(connection: socket.socket) -> bool:
    """Whether the server has ended a connection; what it has said before that is skipped."""
    connection.setblocking(False)
    try:
        while data := connection.recv(65536):
            del data
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


async def closed_within(connections: list[socket.socket], timeout_s: float) -> int:
    """How many of some connections the server has ended after at most so long."""
    end = time.monotonic() + timeout_s
    while (count := sum(map(closed, connections))) < len(connections) and time.monotonic() < end:  # noqa: ASYNC110  (sockets)
        await asyncio.sleep(0.02)
    return count


def test_connections_are_bounded() -> None:
    """Those beyond the limit are closed, those within stay, and whoever comes when some have gone is served."""

    async def run() -> None:
        async with serving(max_connections=20) as address:
            assert await healthy(address)
            with ExitStack() as held:
                greedy = [held.enter_context(socket.create_connection(split_address(address))) for _ in range(60)]
                for one in greedy:
                    one.sendall(PREFACE + b"\0\0\0\4\0\0\0\0\0")
                await asyncio.sleep(0.5)
                assert sum(map(closed, greedy)) >= 40
                assert not await healthy(address)
            async with asyncio.timeout(10):
                while not await healthy(address):  # noqa: ASYNC110  (over gRPC)
                    await asyncio.sleep(0.05)

    asyncio.run(run())


def test_who_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is silent, or that spells out its greeting byte by byte, is ended, and holds up nobody meanwhile."""
    quick = [(key, 500 if key == "grpc.server_handshake_timeout_ms" else value) for key, value in served.OPTIONS]
    assert dict(served.OPTIONS)["grpc.server_handshake_timeout_ms"] == 10_000
    monkeypatch.setattr(served, "OPTIONS", quick)

    async def run() -> None:
        async with serving() as address:
            with ExitStack() as held:
                idle = [held.enter_context(socket.create_connection(split_address(address))) for _ in range(20)]
                slow = [held.enter_context(socket.create_connection(split_address(address))) for _ in range(20)]
                for byte in PREFACE[:10]:
                    for one in slow:
                        one.sendall(bytes([byte]))
                assert await healthy(address)
                assert await closed_within([*idle, *slow], 5) == 40

    asyncio.run(run())


def test_metadata_and_requests_are_bounded() -> None:
    """More metadata, or a larger request, than the server takes is RESOURCE_EXHAUSTED; what just fits is served."""

    async def run() -> None:
        async with serving() as address, grpc.aio.insecure_channel(address) as channel:
            stub = ebpf_pb2_grpc.DebugServiceStub(channel)

            async def code(request_bytes: int, metadata_bytes: int) -> str:
                request = ebpf_pb2.StopUprobeCollectorRequest(collector_id="x" * request_bytes)
                try:
                    await stub.StopUprobeCollector(request, metadata=(("coral-actor", "x" * metadata_bytes),), timeout=10)
                except grpc.aio.AioRpcError as error:
                    return str(error.code().name)
                return "OK"

            assert await code(10, 15_000) == "OK"
            assert await code(MAX_REQUEST_BYTES - 100, 10) == "OK"
            assert await code(10, 30_000) == "RESOURCE_EXHAUSTED"
            assert await code(MAX_REQUEST_BYTES + 100, 10) == "RESOURCE_EXHAUSTED"
            assert await healthy(address)

    asyncio.run(run())
