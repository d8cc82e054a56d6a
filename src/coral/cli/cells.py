"""How many columns of a terminal a text takes: a character of East Asian scripts or an emoji takes two, a mark none."""

from __future__ import annotations

import unicodedata


def cell_width(text: str) -> int:
    """Columns that ``text`` takes (Unicode Standard Annex 11: W and F are two wide)."""
    if text.isascii():
        return len(text)
    return sum(map(_character, text))


def pad(text: str, width: int, *, right: bool = False) -> str:
    """``text`` with spaces to ``width`` columns, before it if ``right``."""
    spaces = " " * (width - cell_width(text))
    return spaces + text if right else text + spaces


def cut(text: str, width: int) -> str:
    """``text``, or as much of it as fits into ``width`` columns with an ellipsis at its end."""
    if cell_width(text) <= width:
        return text
    return text[: prefix(text, width - 1)] + "…" if width > 0 else ""


def prefix(text: str, width: int) -> int:
    """How many characters of ``text`` fit into ``width`` columns."""
    taken = 0
    for count, character in enumerate(text):
        taken += _character(character)
        if taken > width:
            return count
    return len(text)


def _character(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
