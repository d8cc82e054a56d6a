"""Addresses as HOST:PORT, and what a message may weigh: what clients and servers have to agree on. Imports no server."""

from __future__ import annotations

import ipaddress

from coral.model.errors import FailedPrecondition, InvalidArgument
from coral.model.text import printable

MAX_MESSAGE_BYTES = 16 << 20
"""What an answer, or a batch of a stream, may weigh."""
MAX_REQUEST_BYTES = 4 << 20
"""What a request may: the largest is an agent's that sees ten thousand services."""


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``.

    Raises:
        InvalidArgument: It is not of that form.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidArgument(f"{address!r} is not an address.", hint="Give HOST:PORT, for example 127.0.0.1:8081.")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether an address is one of this host that others cannot reach.

    Raises:
        InvalidArgument: It is no address.
    """
    host, _ = split_address(address)
    return host == "localhost" or (_is_ip(host) and ipaddress.ip_address(host).is_loopback)


def require_loopback(address: str) -> None:
    """Refuses to serve beyond this host while nobody has to show who they are.

    Raises:
        FailedPrecondition: The address is not a loopback one.
        InvalidArgument: It is no address.
    """
    if not is_loopback(address):
        raise FailedPrecondition(
            f"{printable(address)} can be reached from other hosts, and nothing authenticates them.",
            hint="Listen on 127.0.0.1, and reach it through an SSH tunnel.",
        )


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
