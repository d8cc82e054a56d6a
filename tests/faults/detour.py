"""A detour for an agent's batches: a proxy that speaks gRPC, and delivers some of them twice, late, or in another order."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

_STREAM = "/coral.mesh.v1.DebugService/StreamUprobeEvents"
_LIMIT = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]


class Detour(grpc.GenericRpcHandler):
    """Passes calls on to ``target`` as they are, bytes for bytes; of a stream of batches it is less careful.

    Attributes:
        address: HOST:PORT that it listens on.
        twice: The share of batches that it delivers a second time, some later.
        swapped: The share of batches that it delivers after the one that follows.
        done: How many it has delivered again, or late.
    """

    def __init__(self, target: str, *, seed: int) -> None:
        self.address = ""
        self.twice = self.swapped = 0.0
        self.done = 0
        self._target = target
        self._random = random.Random(seed)
        self._channel: grpc.aio.Channel | None = None
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listens on a free port."""
        self._channel = grpc.aio.insecure_channel(self._target, options=_LIMIT)
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0), *_LIMIT])
        self._server.add_generic_rpc_handlers((self,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()

    async def stop(self) -> None:
        """Ends it, and what runs over it."""
        assert self._server is not None and self._channel is not None
        await self._server.stop(0)
        await self._channel.close()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """The handler of a call: every method is known here."""
        method = handler_call_details.method
        metadata = tuple((key, value) for key, value in handler_call_details.invocation_metadata if key.startswith("coral"))

        async def unary(request: bytes, context: Any) -> bytes:
            assert self._channel is not None
            stub: Any = self._channel.unary_unary(method)
            try:
                answer: bytes = await stub(request, metadata=metadata, timeout=context.time_remaining())
            except grpc.aio.AioRpcError as error:
                await _abort(context, error)
            return answer

        async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
            assert self._channel is not None
            stub: Any = self._channel.unary_stream(method)
            try:
                async for batch in self._careless(stub(request, metadata=metadata)):
                    yield batch
            except grpc.aio.AioRpcError as error:
                await _abort(context, error)

        if method == _STREAM:
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)

    async def _careless(self, batches: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        late: bytes | None = None
        async for batch in batches:
            if late is None and self._random.random() < self.swapped:
                late = batch
                continue
            yield batch
            if late is not None:
                yield late
                late = None
                self.done += 1
            if self._random.random() < self.twice:
                self.done += 1
                yield batch
        if late is not None:
            yield late


async def _abort(context: Any, error: grpc.aio.AioRpcError) -> None:
    """Answers as the target did, details included."""
    context.set_trailing_metadata(tuple(error.trailing_metadata()))
    await context.abort(error.code(), error.details() or "")


@contextmanager
def detour_to(target: str, *, seed: int = 0) -> Iterator[Detour]:
    """A careful proxy in front of an agent, in a thread of its own, for as long as the block lasts."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="detour", daemon=True)
    thread.start()

    def do(work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(10)

    detour = Detour(target, seed=seed)
    do(detour.start())
    try:
        yield detour
    finally:
        do(detour.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
