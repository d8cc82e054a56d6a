"""How durations are written, and what of a name may reach a terminal."""

import pytest

from coral.model.errors import InvalidArgument
from coral.model.text import format_duration, parse_duration, printable


@pytest.mark.parametrize(
    ("text", "value_ns"),
    [
        ("1m30s", 90_000_000_000),
        ("500ms", 500_000_000),
        ("1.5s", 1_500_000_000),
        ("2h", 7_200_000_000_000),
        ("7us", 7_000),
        ("0s", 0),
    ],
)
def test_durations_have_units(text: str, value_ns: int) -> None:
    """Units add up."""
    assert parse_duration(text) == value_ns


@pytest.mark.parametrize("text", ["", "10", "-5s", "1 s", "s", "1m30", "1e3s", "\x1b[2J"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """A bare number's unit would be a guess; the message shows the form."""
    with pytest.raises(InvalidArgument, match="1m30s, 10s, 500ms"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("value_ns", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1.00 µs"),
        (212_400, "212 µs"),
        (41_000_000, "41.0 ms"),
        (999_960, "1.00 ms"),
        (3.4e9, "3.40 s"),
    ],
)
def test_durations_are_shown_with_three_digits(value_ns: float, text: str) -> None:
    """Three significant digits and the unit that suits them."""
    assert format_duration(value_ns) == text


def test_nothing_that_a_terminal_acts_on_is_printed() -> None:
    """Escape codes and line breaks are shown, not sent; ordinary text stays as it is."""
    assert printable("größe µs") == "größe µs"
    assert printable("a\x1b[31mb\n\u202e") == r"a\x1b[31mb\n\u202e"
