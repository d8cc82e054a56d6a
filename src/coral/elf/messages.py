"""Values on the socket between ``parser`` and ``worker``: to JSON and back."""

from __future__ import annotations

import dataclasses
import socket
import time
from typing import Any

from coral.elf.image import ImageInfo
from coral.model.addresses import FileOffset
from coral.model.errors import AmbiguousName, CoralError, error_for
from coral.model.site import FunctionPlan, Method, Pairing, Site, SiteKind

MOST_FILES = 16
"""With one request: the image, and files that may hold its symbols."""


def info_to_json(info: ImageInfo) -> dict[str, Any]:
    """An ``ImageInfo`` as JSON."""
    return dataclasses.asdict(info)


def info_from_json(value: dict[str, Any]) -> ImageInfo:
    """The reverse of ``info_to_json``."""
    return ImageInfo(**value)


def plan_to_json(plan: FunctionPlan) -> dict[str, Any]:
    """A ``FunctionPlan`` as JSON."""
    return {**dataclasses.asdict(plan), "sites": [site_to_json(site) for site in plan.sites]}


def plan_from_json(value: dict[str, Any]) -> FunctionPlan:
    """The reverse of ``plan_to_json``."""
    sites = tuple(site_from_json(site) for site in value["sites"])
    return FunctionPlan(**{**value, "sites": sites, "pairing": Pairing(value["pairing"]), "method": Method(value["method"])})


def site_to_json(site: Site) -> dict[str, Any]:
    """A ``Site`` as JSON."""
    return {**dataclasses.asdict(site), "original": site.original.hex()}


def site_from_json(value: dict[str, Any]) -> Site:
    """The reverse of ``site_to_json``."""
    return Site(
        offset=FileOffset(value["offset"]),
        kind=SiteKind(value["kind"]),
        reason=value["reason"],
        condition=value["condition"],
        to=value["to"],
        original=bytes.fromhex(value["original"]),
    )


def error_to_json(error: CoralError) -> dict[str, Any]:
    """An error as JSON."""
    return {
        "class": type(error).__name__,
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "details": error.details,
    }


def error_from_json(value: dict[str, Any]) -> CoralError:
    """The reverse of ``error_to_json``."""
    cls = AmbiguousName if value["class"] == AmbiguousName.__name__ else error_for(value["code"])
    return cls(value["message"], hint=value["hint"], details=value["details"])


def read_exactly(connection: socket.socket, size_bytes: int, deadline: float | None = None) -> bytes:
    """The next ``size_bytes`` of a stream.

    Args:
        connection: The stream.
        size_bytes: How many.
        deadline: By ``time.monotonic()``; None for never.

    Raises:
        EOFError: The other side closed before.
        TimeoutError: They did not come in time.
    """
    parts = bytearray()
    while len(parts) < size_bytes:
        if deadline is not None:
            # A timeout of a socket is one of each receive; whoever sends a byte at a time would never meet it.
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            if time.monotonic() >= deadline:
                raise TimeoutError
        part = connection.recv(min(1 << 20, size_bytes - len(parts)))
        if not part:
            raise EOFError(f"the connection ended after {len(parts)} of {size_bytes} bytes")
        parts += part
    return bytes(parts)
