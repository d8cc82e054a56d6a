"""Lines that fit a terminal, whatever stands in them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coral.cli.cells import cell_width, cut, pad
from coral.cli.folding import Span, fold

CALLS = (
    Span("calls   ", "dim"),
    Span("1,320/s     "),
    Span("p50 ", "dim"),
    Span("212 µs   "),
    Span("max ", "dim"),
    Span("41.0 ms"),
)


def texts(pieces: list[tuple[Span, ...]]) -> list[str]:
    """The lines without their styles."""
    return ["".join(span.text for span in piece) for piece in pieces]


def test_a_line_is_broken_between_things() -> None:
    """It breaks where a gap is, not between a number and its unit; what follows stands below, with its styles."""
    pieces = list(fold(CALLS, width=36, indent=8))
    assert texts(pieces) == ["calls   1,320/s     p50 212 µs", "        max 41.0 ms"]
    assert pieces[1] == (Span(" " * 8), Span("max ", "dim"), Span("41.0 ms"))


def test_a_line_that_fits_stays_as_it_is() -> None:
    """Nothing is changed then."""
    assert list(fold(CALLS, width=60, indent=8)) == [CALLS]


def test_sentences_break_at_spaces_and_words_anywhere() -> None:
    """A sentence has no gaps, a long name not even a space."""
    assert texts(list(fold((Span("ledger  "), Span("13 entered = 12 returned")), width=22, indent=8))) == [
        "ledger  13 entered =",
        "        12 returned",
    ]
    assert texts(list(fold((Span("abcdefghijklmnopqrstuvwxyz"),), width=20, indent=8))) == [
        "abcdefghijklmnopqrst",
        "        uvwxyz",
    ]


@given(st.lists(st.text(st.sampled_from("ab 界é😀"), max_size=30), max_size=6), st.integers(20, 40))
def test_nothing_is_lost_and_everything_fits(parts: list[str], width: int) -> None:
    """Whatever the text, no line is wider than the terminal, and every character but spaces is still there."""
    pieces = texts(list(fold(tuple(map(Span, parts)), width=width, indent=8)))
    assert "".join(pieces).replace(" ", "") == "".join(parts).replace(" ", "")
    assert [piece for piece in pieces if cell_width(piece.rstrip()) > width] == []


def test_wide_characters_take_two_columns() -> None:
    """Tables stay aligned, and what is cut fits."""
    assert [cell_width(text) for text in ("ab", "界", "é", "e\u0301", "😀")] == [2, 2, 1, 1, 2]
    assert (pad("界", 4), pad("界", 4, right=True)) == ("界  ", "  界")
    assert (cut("service", 7), cut("service", 4), cut("界界界", 4)) == ("service", "ser…", "界…")
