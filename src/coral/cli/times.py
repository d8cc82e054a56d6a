"""Times as people and programs write them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from coral.model.errors import InvalidArgument
from coral.model.text import parse_duration, printable

_BILLION = 1_000_000_000
_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)")


def rfc3339(value_ns: int, *, decimals: int = 6) -> str:
    """``2026-11-24T12:01:07.113204Z`` of ns since the epoch, in UTC; digits beyond ``decimals`` are cut off."""
    seconds, rest = divmod(value_ns, _BILLION)
    fraction = f"{rest:09}"[:decimals]
    # isoformat rather than strftime: %Y is not padded on every platform, and this is the hot path of the events' output.
    return f"{datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()}.{fraction}Z"


def local_clock(value_ns: int, *, decimals: int = 3, date: bool = False) -> str:
    """``12:01:07.113`` of ns since the epoch, in the time zone of whoever looks; with the date before it if asked for."""
    seconds, rest = divmod(value_ns, _BILLION)
    form = "%Y-%m-%d %H:%M:%S" if date else "%H:%M:%S"
    return f"{time.strftime(form, time.localtime(seconds))}.{f'{rest:09}'[:decimals]}"


def local_moment(value_ns: int, *, now_ns: int) -> str:
    """A time for a list, to the second, in the time zone of whoever looks: without its date if that is today's."""
    today = time.localtime(value_ns // _BILLION)[:3] == time.localtime(now_ns // _BILLION)[:3]
    return local_clock(value_ns, decimals=0, date=not today).rstrip(".")


def parse_moment(text: str, *, now_ns: int) -> int:
    """Ns since the epoch of an RFC 3339 time, or of a duration before ``now_ns``.

    Raises:
        InvalidArgument: It is neither. A time without its zone is refused: which one is meant would be a guess.
    """
    matched = _RFC_3339.fullmatch(text)
    if not matched:
        try:
            return now_ns - parse_duration(text)
        except InvalidArgument:
            raise _no_moment(text) from None
    day, clock, fraction, zone = matched.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
    except ValueError:
        raise _no_moment(text) from None
    return int(moment.timestamp()) * _BILLION + int((fraction or "0").ljust(9, "0")[:9])


def _no_moment(text: str) -> InvalidArgument:
    return InvalidArgument(
        f"{printable(text)!r} is not a time.", hint="Write RFC 3339, 2026-01-31T12:00:00Z, or a duration ago, 5m."
    )
