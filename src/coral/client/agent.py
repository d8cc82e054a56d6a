"""A typed client of one agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from coral.model.errors import Unavailable
from coral.wire._generated.mesh.v1 import ebpf_pb2, inspect_pb2
from coral.wire.errors import from_rpc
from coral.wire.metadata import COLONY_KEY, COMMAND_KEY

M = TypeVar("M", bound=Message)
Sign = Callable[[str, bytes], bytes]
"""Signs a command: the full name of its method and the bytes of its request to the envelope that goes with it."""

_DEBUG = f"/{ebpf_pb2.DESCRIPTOR.services_by_name['DebugService'].full_name}/"
_INSPECT = f"/{inspect_pb2.DESCRIPTOR.services_by_name['InspectService'].full_name}/"
_OF_COLONY = ((COLONY_KEY, "1"),)


class AgentClient:
    """The RPCs of an agent. What they raise is a ``CoralError``: the agent's own, or Unavailable and DeadlineExceeded.

    Requests are serialized here rather than by grpc, so that the bytes that are signed are the bytes that are sent.
    """

    def __init__(self, channel: grpc.aio.Channel, *, peer: str, sign: Sign | None = None) -> None:
        """Takes a channel.

        Args:
            channel: To the agent.
            peer: Who is called, for messages ("Agent web-1 at 10.0.0.4:8080").
            sign: Signs each command; None towards an agent that asks for no credentials.
        """
        self._channel = channel
        self._peer = peer
        self._sign = sign

    async def start(
        self, request: ebpf_pb2.StartUprobeCollectorRequest, *, timeout_s: float
    ) -> ebpf_pb2.StartUprobeCollectorResponse:
        """Attaches a probe for the colony; the same session id again gives the same collector."""
        return await self._call(
            _DEBUG + "StartUprobeCollector", request, ebpf_pb2.StartUprobeCollectorResponse, timeout_s, _OF_COLONY
        )

    async def stop(self, collector_id: str, *, timeout_s: float) -> ebpf_pb2.StopUprobeCollectorResponse:
        """Detaches, and returns when that was verified."""
        request = ebpf_pb2.StopUprobeCollectorRequest(collector_id=collector_id)
        return await self._call(_DEBUG + "StopUprobeCollector", request, ebpf_pb2.StopUprobeCollectorResponse, timeout_s)

    async def query(
        self, request: ebpf_pb2.QueryUprobeEventsRequest, *, timeout_s: float
    ) -> ebpf_pb2.QueryUprobeEventsResponse:
        """One page of the events in the agent's window."""
        return await self._call(_DEBUG + "QueryUprobeEvents", request, ebpf_pb2.QueryUprobeEventsResponse, timeout_s)

    async def stream(
        self, collector_id: str, *, after_sequence: int, gather_ms: int = 0
    ) -> AsyncGenerator[ebpf_pb2.UprobeEventBatch, None]:
        """Batches from after a sequence on, until the final one; closing the iterator ends the call.

        Args:
            collector_id: Whose.
            after_sequence: The last one that is known.
            gather_ms: For how long at least a batch that is not full is gathered; 0 as the agent likes.
        """
        request = ebpf_pb2.StreamUprobeEventsRequest(
            collector_id=collector_id, after_sequence=after_sequence, gather_ms=gather_ms
        )
        method, raw = _DEBUG + "StreamUprobeEvents", request.SerializeToString()
        stub: grpc.aio.UnaryStreamMultiCallable[bytes, ebpf_pb2.UprobeEventBatch] = self._channel.unary_stream(
            method, response_deserializer=ebpf_pb2.UprobeEventBatch.FromString
        )
        call = stub(raw, metadata=self._signature(method, raw))
        try:
            async for batch in call:
                yield batch
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, peer=self._peer) from None
        except asyncio.CancelledError:
            self._raise_if_closed()
            raise
        finally:
            call.cancel()

    async def list_images(
        self, request: inspect_pb2.ListImagesRequest, *, timeout_s: float
    ) -> inspect_pb2.ListImagesResponse:
        """The images that a service runs on this host."""
        return await self._call(_INSPECT + "ListImages", request, inspect_pb2.ListImagesResponse, timeout_s)

    async def list_functions(
        self, request: inspect_pb2.ListFunctionsRequest, *, timeout_s: float
    ) -> inspect_pb2.ListFunctionsResponse:
        """A page of the functions of one image."""
        return await self._call(_INSPECT + "ListFunctions", request, inspect_pb2.ListFunctionsResponse, timeout_s)

    async def explain_function(
        self, request: inspect_pb2.ExplainFunctionRequest, *, timeout_s: float
    ) -> inspect_pb2.ExplainFunctionResponse:
        """What an attach to a function would do on this host."""
        return await self._call(_INSPECT + "ExplainFunction", request, inspect_pb2.ExplainFunctionResponse, timeout_s)

    async def resolve_function(
        self, request: inspect_pb2.ResolveFunctionRequest, *, timeout_s: float
    ) -> inspect_pb2.ResolveFunctionResponse:
        """What the code that an attach would probe on this host is called."""
        return await self._call(_INSPECT + "ResolveFunction", request, inspect_pb2.ResolveFunctionResponse, timeout_s)

    async def _call(
        self,
        method: str,
        request: Message,
        response: type[M],
        timeout_s: float,
        metadata: tuple[tuple[str, str | bytes], ...] = (),
    ) -> M:
        raw = request.SerializeToString()
        stub: grpc.aio.UnaryUnaryMultiCallable[bytes, M] = self._channel.unary_unary(
            method, response_deserializer=response.FromString
        )
        try:
            return await stub(raw, timeout=timeout_s, metadata=(*metadata, *self._signature(method, raw)))
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, peer=self._peer) from None
        except asyncio.CancelledError:
            self._raise_if_closed()
            raise

    def _raise_if_closed(self) -> None:
        """Tells a connection that was closed, which grpc reports by cancelling its calls, from a caller that is cancelled.

        Raises:
            Unavailable: It was closed.
        """
        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            raise Unavailable(f"{self._peer} cannot be reached: the connection to it was ended.") from None

    def _signature(self, method: str, raw: bytes) -> tuple[tuple[str, str | bytes], ...]:
        return ((COMMAND_KEY, self._sign(method, raw)),) if self._sign else ()
