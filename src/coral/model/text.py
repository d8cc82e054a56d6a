"""What may stand in a name, and how durations are written."""

from __future__ import annotations

import re

from coral.model.errors import InvalidArgument

MAX_NAME_BYTES = 1024
_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")


def check_name(value: str, what: str, *, required: bool = True) -> str:
    """Returns ``value`` if it can be a name.

    Args:
        value: What the caller gave.
        what: What it names, for the message ("service_name").
        required: Whether it may be empty.

    Raises:
        InvalidArgument: It is empty, longer than 1,024 bytes, or has a control character.
    """
    if not value:
        if required:
            raise InvalidArgument(f"{what} is empty.", hint=f"Give {what}.")
        return value
    size = len(value.encode(errors="surrogatepass"))
    if size > MAX_NAME_BYTES:
        raise InvalidArgument(f"{what} has {size:,} bytes.", hint=f"At most {MAX_NAME_BYTES:,} bytes are allowed.")
    for character in value:
        if not character.isprintable():
            raise InvalidArgument(
                f"{what} has the unprintable character U+{ord(character):04X}.",
                hint="Names are printable text on one line.",
            )
    return value


def printable(value: str) -> str:
    r"""``value`` with whatever a terminal or a log would act on replaced by ``\\xNN`` escapes."""
    if value.isprintable():
        return value
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration such as ``1m30s`` or ``500ms``.

    Raises:
        InvalidArgument: It is not one; a bare number is refused, since its unit would be a guess.
    """
    if not _DURATION.fullmatch(text):
        raise InvalidArgument(f"{printable(text)!r} is not a duration.", hint="Write it with its unit: 1m30s, 10s, 500ms.")
    return sum(round(float(number) * _UNITS_NS[unit]) for number, unit in _PART.findall(text))


def format_duration(value_ns: float) -> str:
    """A duration with three significant digits and the unit that suits it: ``212 µs``, ``41.0 ms``, ``3.40 s``."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if value_ns >= 0.9995 * size:
            scaled = value_ns / size
            digits = 0 if scaled >= 99.95 else 1 if scaled >= 9.995 else 2
            return f"{scaled:,.{digits}f} {unit}"
    return f"{value_ns:.0f} ns"
