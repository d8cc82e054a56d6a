"""What takes a name or a number as text: it is read or refused, and never comes out as more than text."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from coral.model.errors import CoralError
from coral.model.probe import check_sdk_addr, split_function
from coral.model.text import MAX_NAME_BYTES, check_name, parse_duration, printable
from coral.trust.authority import agent_dns
from coral.wire.address import require_loopback, split_address
from fuzz.hostile_text import any_text

_READERS: tuple[Callable[[str], Any], ...] = (
    lambda value: check_name(value, "service_name"),
    lambda value: check_name(value, "agent_id", required=False),
    split_function,
    check_sdk_addr,
    parse_duration,
    split_address,
    require_loopback,
)


def case(randomness: random.Random) -> str:
    """One text through everything that reads one."""
    value = any_text(randomness)
    shown = printable(value)
    assert shown.isprintable(), f"printable() lets {shown!r} through"
    assert printable(shown) == shown, f"printable() of {shown!r} is not itself"
    outcomes = []
    for read in _READERS:
        try:
            read(value)
            outcomes.append("read")
        except CoralError as error:
            outcomes.append(error.code)
            assert str(error).isprintable(), f"an error shows {str(error)!r}"
    if outcomes[0] == "read":
        assert value.isprintable(), f"check_name() lets {value!r} through"
        assert 0 < len(value.encode()) <= MAX_NAME_BYTES
        dns = agent_dns(value)
        assert dns.isascii(), dns
        assert len(dns) <= 253, dns
    return outcomes[0]
