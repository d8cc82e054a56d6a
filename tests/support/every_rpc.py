"""Every RPC of a server, from the descriptors of its services, and a request for each that changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory

CALL_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Rpc:
    """One of them.

    Attributes:
        service: Full name of its service.
        name: Its own.
        request: A message that it takes.
        streams: Whether its answer is a stream.
    """

    service: str
    name: str
    request: bytes
    streams: bool

    @property
    def method(self) -> str:
        """The full name, as it travels."""
        return f"/{self.service}/{self.name}"


def every_rpc(services: Sequence[str], *, fill: dict[str, dict[str, Any]]) -> list[Rpc]:
    """Those of services.

    Args:
        services: Full names.
        fill: By name of an RPC, fields of its request; below ``*`` those that every request gets that has them.
    """
    found = []
    for service in services:
        for method in descriptor_pool.Default().FindServiceByName(service).methods:
            request = message_factory.GetMessageClass(method.input_type)()
            for name, value in {**fill.get("*", {}), **fill.get(method.name, {})}.items():
                if name in method.input_type.fields_by_name:
                    setattr(request, name, value)
            found.append(
                Rpc(service=service, name=method.name, request=request.SerializeToString(), streams=method.server_streaming)
            )
    return found


async def outcome(channel: grpc.aio.Channel, rpc: Rpc, metadata: Sequence[tuple[str, str | bytes]] = ()) -> str:
    """The name of the status that a call ends with, of a stream that with which its first message comes or does not.

    UNREACHABLE stands for a server that did not even say so itself.
    """
    try:
        if rpc.streams:
            stream = channel.unary_stream(rpc.method)(rpc.request, metadata=metadata, timeout=CALL_S)
            await stream.read()
            stream.cancel()
        else:
            await channel.unary_unary(rpc.method)(rpc.request, metadata=metadata, timeout=CALL_S)
    except grpc.aio.AioRpcError as error:
        said = any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata() or ())
        return "UNREACHABLE" if error.code() is grpc.StatusCode.UNAVAILABLE and not said else error.code().name
    return "OK"
