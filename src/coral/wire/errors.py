"""Errors on the wire: one gRPC status with ``google.rpc.ErrorInfo`` (domain ``coral``) per ``CoralError``, both ways."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from coral.model.errors import CoralError, DeadlineExceeded, Unavailable, Unimplemented, error_for

DOMAIN = "coral"
_HINT = "hint"
_MAX_TEXT = 3000
"""Status messages travel as HTTP/2 headers, which clients limit to 8 KiB in all; the details repeat the text."""


def to_status(error: CoralError) -> grpc.Status:
    """The status to abort an RPC with: the message names the next step, the details carry the parts."""
    code = grpc.StatusCode[error.code]
    metadata = {name: value[:_MAX_TEXT] for name, value in error.details.items()}
    if error.hint:
        metadata[_HINT] = error.hint[:_MAX_TEXT]
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN, metadata=metadata))
    return rpc_status.to_status(status_pb2.Status(code=code.value[0], message=str(error)[:_MAX_TEXT], details=[detail]))


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: CoralError) -> None:
    """Ends an RPC of an aio server with ``error``; does not return."""
    status = to_status(error)
    await context.abort(status.code, status.details, tuple(status.trailing_metadata))


def from_rpc(error: grpc.aio.AioRpcError, *, peer: str) -> CoralError:
    """The ``CoralError`` that the other side raised, or what gRPC itself reports, as one.

    Args:
        error: As grpc raised it; an aio call's error.
        peer: Who was called, for the message when it could not be reached.
    """
    code = error.code()
    text = error.details() or ""
    info = _info(error)
    if info is not None:
        metadata = dict(info.metadata)
        hint = metadata.pop(_HINT, "")
        return error_for(info.reason)(text.removesuffix(hint).strip(), hint=hint, details=metadata)
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(f"{peer} cannot be reached: {text}.", hint="Is it running, and is the address right?")
    if code is grpc.StatusCode.CANCELLED:  # a server of gRPC does that to calls that it has no time to take up
        return Unavailable(f"{peer} did not take the call: it has too much to do, or is ending.", hint="Try again.")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(f"{peer} did not answer in time.", hint="Try again; look at its log if it stays so.")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Unimplemented(f"{peer} does not know this call: {text}", hint="Is that the address of the right server?")
    return error_for(code.name)(text or code.name)


def _info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo | None:
    metadata = error.trailing_metadata() or ()
    for key, value in metadata:
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                info = error_details_pb2.ErrorInfo()
                if detail.Is(info.DESCRIPTOR) and detail.Unpack(info) and info.domain == DOMAIN:
                    return info
    return None
