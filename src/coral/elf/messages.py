"""Values on the socket between ``parser`` and ``worker``: to JSON and back."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from typing import Any

from coral.elf.image import ImageInfo
from coral.elf.shape import shaped
from coral.model.errors import AmbiguousName, CoralError, error_for
from coral.model.site import FunctionPlan, Site

MOST_FILES = 16
"""With one request: the image, and files that may hold its symbols."""


_MOST_SITES = 65_535
_LONGEST_INSTRUCTION = 15  # Intel SDM, volume 2, section 2.3.11
_LAST_CONDITION = 15


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Error:
    """An error as JSON has it."""

    cls: str
    code: str
    message: str
    hint: str
    details: dict[str, str]


def info_to_json(info: ImageInfo) -> dict[str, Any]:
    """An ``ImageInfo`` as JSON."""
    return dataclasses.asdict(info)


def info_from_json(value: object) -> ImageInfo:
    """The reverse of ``info_to_json``.

    Raises:
        ValueError: It is none.
    """
    return shaped(ImageInfo, value)


def plan_to_json(plan: FunctionPlan) -> dict[str, Any]:
    """A ``FunctionPlan`` as JSON."""
    sites = [site_to_json(site) for site in plan.sites]
    return {**dataclasses.asdict(plan), "sites": sites, "called": [list(ways) for ways in plan.called]}


def plan_from_json(value: object) -> FunctionPlan:
    """The reverse of ``plan_to_json``.

    Raises:
        ValueError: It is none, or one that cannot be: too many sites, none to count calls at, instructions of no length.
    """
    plan = shaped(FunctionPlan, value)
    if not plan.entries or len(plan.sites) > _MOST_SITES:
        raise ValueError(f"a plan with {len(plan.entries)} entries among {len(plan.sites)} sites")
    for site in plan.sites:
        if not 1 <= len(site.original) <= _LONGEST_INSTRUCTION or not -1 <= site.condition <= _LAST_CONDITION:
            raise ValueError(f"a site at {site.offset:#x} with {len(site.original)} bytes and condition {site.condition}")
    return plan


def check_original(fd: int, plan: FunctionPlan) -> None:
    """Compares the instructions of a plan with the file.

    Raises:
        ValueError: The file has something else there.
    """
    for site in plan.sites:
        if os.pread(fd, len(site.original), site.offset) != site.original:
            raise ValueError(f"the file does not have the instruction at {site.offset:#x}")


def site_to_json(site: Site) -> dict[str, Any]:
    """A ``Site`` as JSON."""
    return {**dataclasses.asdict(site), "original": site.original.hex()}


def error_to_json(error: CoralError) -> dict[str, Any]:
    """An error as JSON."""
    return {
        "cls": type(error).__name__,
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "details": error.details,
    }


def error_from_json(value: object) -> CoralError:
    """The reverse of ``error_to_json``.

    Raises:
        ValueError: It is none.
    """
    error = shaped(_Error, value)
    cls = AmbiguousName if error.cls == AmbiguousName.__name__ else error_for(error.code)
    return cls(error.message, hint=error.hint, details=error.details)


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
