"""Where the colony reaches this agent, which is not always where it listens."""

from __future__ import annotations

import ipaddress
import socket

from coral.model.errors import FailedPrecondition
from coral.wire.address import split_address


def reachable_at(*, advertise: str, bound: str, colony: str) -> str:
    """The address to tell the colony, HOST:PORT.

    Args:
        advertise: What the settings say; empty for nothing.
        bound: HOST:PORT that the agent serves on. If that is every address of the host, it is the one by which this host
            reaches the colony.
        colony: HOST:PORT of the colony.

    Raises:
        FailedPrecondition: There is no way to the colony from here.
        InvalidArgument: An address is none.
    """
    if advertise:
        split_address(advertise)
        return advertise
    host, port = split_address(bound)
    try:
        everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:  # a name
        everywhere = False
    if not everywhere:
        return bound
    found = _source_towards(*split_address(colony))
    return f"[{found}]:{port}" if ":" in found else f"{found}:{port}"


def _source_towards(host: str, port: int) -> str:
    """The address that packets to another host carry; nothing is sent to find out."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)  # of a datagram socket: chooses a route
            return str(probe.getsockname()[0])
    except OSError as error:
        raise FailedPrecondition(
            f"There is no way from here to the colony at {host}: {error.strerror or error}.",
            hint="Say where the colony reaches this agent: set `advertise: HOST:PORT`.",
        ) from None
