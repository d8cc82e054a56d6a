"""What is requested: a function of a service, for how long, and which of its calls are reported."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from coral.model.errors import InvalidArgument
from coral.model.text import check_name

SECOND_NS = 1_000_000_000
DEFAULT_DURATION_NS = 60 * SECOND_NS
MIN_DURATION_NS = 1 * SECOND_NS
MAX_DURATION_NS = 600 * SECOND_NS
_LONGEST_NS = (1 << 63) - 1


class Mode(enum.StrEnum):
    """What a probe produces."""

    EVENTS = "events"
    COUNT = "count"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeConfig:
    """How much is reported.

    Attributes:
        capture_args: Arguments are wanted.
        capture_return: Return values are wanted.
        sample_rate: Every Nth call is reported; 0 and 1 mean all.
        max_events: The collector ends when so many were reported; 0 means no limit.
        mode: Events, or only a count of entries.
    """

    capture_args: bool = False
    capture_return: bool = False
    sample_rate: int = 0
    max_events: int = 0
    mode: Mode = Mode.EVENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFilter:
    """Which calls are reported. Zero means no bound.

    Attributes:
        min_duration_ns: Shorter calls are counted as ``filtered``.
        max_duration_ns: Longer calls are counted as ``filtered``.
        max_events_per_second: Calls beyond it are counted as ``rate_limited``.
    """

    min_duration_ns: int = 0
    max_duration_ns: int = 0
    max_events_per_second: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSpec:
    """A requested probe. Constructing one checks it.

    Attributes:
        service_name: Whose function.
        function_name: ``[LIBRARY!]NAME`` or ``FILE:NAME``.
        duration_ns: From acceptance to the deadline, 1 s to 600 s.
        config: How much is reported.
        filter: Which calls are reported.
        sdk_addr: Where an SDK may answer; a hint, loopback or unix socket only.

    Raises:
        InvalidArgument: A value is out of its range; nothing is clamped.
    """

    service_name: str
    function_name: str
    duration_ns: int = DEFAULT_DURATION_NS
    config: ProbeConfig = field(default_factory=ProbeConfig)
    filter: ProbeFilter = field(default_factory=ProbeFilter)
    sdk_addr: str = ""

    def __post_init__(self) -> None:
        check_name(self.service_name, "service_name")
        split_function(check_name(self.function_name, "function_name"))
        check_sdk_addr(self.sdk_addr)
        if not MIN_DURATION_NS <= self.duration_ns <= MAX_DURATION_NS:
            raise InvalidArgument(
                f"A duration of {self.duration_ns / SECOND_NS:.12g} s is out of range.",
                hint="Choose between 1 s and 600 s; leave it out for 60 s.",
            )
        bounds = self.filter
        if bounds.min_duration_ns < 0 or bounds.max_duration_ns < 0:
            raise InvalidArgument("A filter's duration is negative.", hint="Give 0 for no bound.")
        if max(bounds.min_duration_ns, bounds.max_duration_ns) > _LONGEST_NS:
            raise InvalidArgument("A filter's duration is longer than 292 years.", hint="Give 0 for no bound.")
        if 0 < bounds.max_duration_ns < bounds.min_duration_ns:
            raise InvalidArgument(
                "The filter's max_duration is below its min_duration, so no call could pass.", hint="Swap them."
            )


def split_function(text: str) -> tuple[str, str]:
    """Library and name of ``[LIBRARY!]NAME``; the library is empty when none is given.

    Raises:
        InvalidArgument: One of them is missing beside the mark.
    """
    library, mark, name = text.partition("!")
    if not mark or library.endswith("operator"):  # C++ has operator! and operator!=
        return "", text
    if not library or not name:
        raise InvalidArgument(
            f"function_name {text!r} lacks what stands {'behind' if library else 'before'} the exclamation mark.",
            hint="Write LIBRARY!NAME, for example libc.so.6!malloc, or NAME alone.",
        )
    return library, name


def check_sdk_addr(value: str) -> str:
    """Returns ``value`` if it is empty, a loopback ``HOST:PORT`` or ``unix:PATH``.

    An address chosen by a caller would otherwise let anyone make a root process connect wherever they like.

    Raises:
        InvalidArgument: It is anything else.
    """
    check_name(value, "sdk_addr", required=False)
    if not value or value.startswith(("unix:/", "/")):
        return value
    host, _, port = value.rpartition(":")
    host = host.strip("[]")
    loopback = host in ("localhost", "::1") or (
        host.startswith("127.")
        and all(part.isdecimal() and int(part) < 256 for part in host.split("."))
        and host.count(".") == 3
    )
    if not loopback or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidArgument(
            f"sdk_addr {value!r} is not on this host.",
            hint="It is a hint and never needed: leave it out, or give 127.0.0.1:PORT or unix:/PATH.",
        )
    return value
