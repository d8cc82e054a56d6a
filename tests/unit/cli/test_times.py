"""Times in and out."""

from __future__ import annotations

import pytest

from coral.cli.times import local_clock, parse_moment, rfc3339
from coral.model.errors import InvalidArgument

NOW_NS = 1_700_000_000_123_456_789


def test_rfc3339_in_utc() -> None:
    """Nanoseconds are cut, not rounded, to the digits wanted, and the zone is Z."""
    assert rfc3339(NOW_NS) == "2023-11-14T22:13:20.123456Z"
    assert rfc3339(NOW_NS, decimals=9) == "2023-11-14T22:13:20.123456789Z"
    assert rfc3339(0, decimals=9) == "1970-01-01T00:00:00.000000000Z"


def test_local_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """People read their own time zone."""
    import time

    monkeypatch.setenv("TZ", "XYZ-2")
    time.tzset()
    try:
        assert local_clock(NOW_NS) == "00:13:20.123"
        assert local_clock(NOW_NS, decimals=6, date=True) == "2023-11-15 00:13:20.123456"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023-11-14T22:13:20Z", 1_700_000_000_000_000_000),
        ("2023-11-14t22:13:20.123456789z", NOW_NS),
        ("2023-11-15T00:13:20.5+02:00", 1_700_000_000_500_000_000),
        ("1969-12-31T23:59:59.25Z", -750_000_000),
        ("1m30s", NOW_NS - 90_000_000_000),
        ("500ms", NOW_NS - 500_000_000),
    ],
)
def test_moments(text: str, expected: int) -> None:
    """RFC 3339 with all its digits, or a duration ago."""
    assert parse_moment(text, now_ns=NOW_NS) == expected


@pytest.mark.parametrize("text", ["", "now", "5", "2023-11-14", "2023-11-14T22:13:20", "2023-13-14T22:13:20Z", "-5s"])
def test_no_moments(text: str) -> None:
    """A bare number, a time without a zone and nonsense are refused with an example of what is right."""
    with pytest.raises(InvalidArgument) as caught:
        parse_moment(text, now_ns=NOW_NS)
    assert "2026-01-31T12:00:00Z" in caught.value.hint
