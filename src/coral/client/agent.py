"""A typed client of one agent."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import grpc

from coral.wire._generated.mesh.v1 import ebpf_pb2, ebpf_pb2_grpc, inspect_pb2, inspect_pb2_grpc
from coral.wire.errors import from_rpc
from coral.wire.metadata import COLONY_KEY


class AgentClient:
    """The RPCs of an agent. What they raise is a ``CoralError``: the agent's own, or Unavailable and DeadlineExceeded."""

    def __init__(self, channel: grpc.aio.Channel, *, peer: str) -> None:
        """Args: ``peer`` is who is called, for messages ("Agent web-1 at 10.0.0.4:8080")."""
        self._stub: ebpf_pb2_grpc.DebugServiceAsyncStub = ebpf_pb2_grpc.DebugServiceStub(channel)
        self._inspect: inspect_pb2_grpc.InspectServiceAsyncStub = inspect_pb2_grpc.InspectServiceStub(channel)
        self._peer = peer

    async def start(
        self, request: ebpf_pb2.StartUprobeCollectorRequest, *, timeout_s: float
    ) -> ebpf_pb2.StartUprobeCollectorResponse:
        """Attaches a probe for the colony; the same session id again gives the same collector."""
        try:
            return await self._stub.StartUprobeCollector(request, timeout=timeout_s, metadata=((COLONY_KEY, "1"),))
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, peer=self._peer) from None

    async def stop(self, collector_id: str, *, timeout_s: float) -> ebpf_pb2.StopUprobeCollectorResponse:
        """Detaches, and returns when that was verified."""
        request = ebpf_pb2.StopUprobeCollectorRequest(collector_id=collector_id)
        try:
            return await self._stub.StopUprobeCollector(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, peer=self._peer) from None

    async def query(
        self, request: ebpf_pb2.QueryUprobeEventsRequest, *, timeout_s: float
    ) -> ebpf_pb2.QueryUprobeEventsResponse:
        """One page of the events in the agent's window."""
        try:
            return await self._stub.QueryUprobeEvents(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, peer=self._peer) from None

    async def stream(self, collector_id: str, *, after_sequence: int) -> AsyncGenerator[ebpf_pb2.UprobeEventBatch, None]:
        """Batches from after a sequence on, until the final one; closing the iterator ends the call."""
        request = ebpf_pb2.StreamUprobeEventsRequest(collector_id=collector_id, after_sequence=after_sequence)
        call = self._stub.StreamUprobeEvents(request)
        try:
            async for batch in call:
                yield batch
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, peer=self._peer) from None
        finally:
            call.cancel()

    async def list_images(
        self, request: inspect_pb2.ListImagesRequest, *, timeout_s: float
    ) -> inspect_pb2.ListImagesResponse:
        """The images that a service runs on this host."""
        try:
            return await self._inspect.ListImages(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, peer=self._peer) from None

    async def list_functions(
        self, request: inspect_pb2.ListFunctionsRequest, *, timeout_s: float
    ) -> inspect_pb2.ListFunctionsResponse:
        """A page of the functions of one image."""
        try:
            return await self._inspect.ListFunctions(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, peer=self._peer) from None

    async def explain_function(
        self, request: inspect_pb2.ExplainFunctionRequest, *, timeout_s: float
    ) -> inspect_pb2.ExplainFunctionResponse:
        """What an attach to a function would do on this host."""
        try:
            return await self._inspect.ExplainFunction(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, peer=self._peer) from None
