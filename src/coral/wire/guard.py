"""The door of a server: who calls, and whether that may be. Asked around every RPC, before its handler runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote

from google.protobuf.message import Message

from coral.model.principal import Kind, Principal
from coral.model.text import printable
from coral.wire.metadata import ACTOR_KEY

_MAX_NAME = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What is known of an RPC before its request is read.

    Attributes:
        method: Its full name, ``/coral.colony.v1.DebugService/AttachUprobe``.
        metadata: What the caller sent along; may hold secrets, so it does not show itself.
        address: Where the connection comes from, HOST:PORT.
        certificate: The client's certificate as PEM, verified against the port's authority; None if none was shown.
        secure: Whether the connection is encrypted.
        request_bytes: How large the request is.
    """

    method: str
    metadata: tuple[tuple[str, str | bytes], ...] = field(default=(), repr=False)
    address: str = ""
    certificate: bytes | None = None
    secure: bool = False
    request_bytes: int = 0

    def values(self, key: str) -> list[str | bytes]:
        """Every value that was sent under a key: whoever sends a credential twice is to be noticed."""
        return [value for name, value in self.metadata if name == key]


class Guard(Protocol):
    """Decides who comes in. One per server; every method must be quick, and none may block."""

    def check_methods(self, methods: Sequence[str]) -> None:
        """Called before the server starts, with the full names of all that it serves.

        Raises:
            Internal: There is no rule for one of them.
        """
        ...

    async def authenticate(self, call: Call) -> Principal:
        """Who calls. The request has not been parsed.

        Raises:
            Unauthenticated: No credential, or a bad one.
            ResourceExhausted: Too many tries.
        """
        ...

    def serving(self, principal: Principal, call: Call) -> AbstractAsyncContextManager[None]:
        """Held from after the authentication to the end of the RPC.

        Raises:
            ResourceExhausted: Too many at once, on entering.
        """
        ...

    async def authorise(self, principal: Principal, call: Call, request: Message, raw: bytes) -> None:
        """Whether the caller may have this done.

        Args:
            principal: Who.
            call: What.
            request: The request, parsed.
            raw: The bytes that it was parsed from.

        Raises:
            PermissionDenied: No; names the action and the rule.
            ResourceExhausted: Not now.
        """
        ...

    async def recheck(self, principal: Principal, call: Call) -> None:
        """Asked twice a second while a stream runs.

        Raises:
            Unauthenticated: The credential has expired or was revoked since.
        """
        ...


class LocalGuard:
    """Lets everybody in, under the name that they give themselves: for servers without authentication, on loopback only."""

    def check_methods(self, methods: Sequence[str]) -> None:
        """Everything may be called."""

    async def authenticate(self, call: Call) -> Principal:
        """Whoever the caller says it is, else its address."""
        return local_principal(call)

    def serving(self, principal: Principal, call: Call) -> AbstractAsyncContextManager[None]:
        """Without bound."""
        return nullcontext()

    async def authorise(self, principal: Principal, call: Call, request: Message, raw: bytes) -> None:
        """Always."""

    async def recheck(self, principal: Principal, call: Call) -> None:
        """Nothing expires."""


def local_principal(call: Call) -> Principal:
    """A caller without credentials: what it says of itself, else its address; never nobody."""
    said = next((str(value) for value in call.values(ACTOR_KEY) if value), "")
    return Principal(name=printable(said)[:_MAX_NAME] or call.address, kind=Kind.LOCAL, address=call.address)


def call_of(context: Any, method: str, raw: bytes = b"") -> Call:
    """What gRPC knows of an RPC.

    Args:
        context: The servicer's context.
        method: The full name.
        raw: The request, not parsed.
    """
    found: Mapping[str, Sequence[bytes]] = context.auth_context() or {}
    return Call(
        method=method,
        metadata=tuple((key, value) for key, value in context.invocation_metadata() or ()),
        address=address_of(context.peer()),
        certificate=next(iter(found.get("x509_pem_cert", ())), None),
        secure=b"ssl" in found.get("transport_security_type", ()),
        request_bytes=len(raw),
    )


def address_of(peer: str) -> str:
    """HOST:PORT of a peer as gRPC gives it, such as ``ipv6:%5B::1%5D:40000``."""
    return unquote(peer.partition(":")[2]) or peer
