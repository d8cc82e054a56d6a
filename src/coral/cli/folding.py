"""Breaks the lines of a picture so that they fit a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from coral.cli.cells import cell_width, prefix

_GAP = re.compile(r" {2,}")
"""Between things that belong less closely together than words."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a line, and the style that a terminal gives it."""

    text: str
    style: str = ""


Line = tuple[Span, ...]


def fold(line: Line, *, width: int, indent: int) -> Iterator[Line]:
    """The lines that one line becomes: broken at its last gap that fits, at a space if it has none, else anywhere.

    Args:
        line: What to break.
        width: Columns there are; more than ``indent``.
        indent: How far the second and later lines are moved in.
    """
    text = "".join(span.text for span in line)
    start, margin = 0, 0
    while cell_width(text[start:].rstrip()) > width - margin:
        end = start + max(1, prefix(text[start:], width - margin))
        at = _break(text, start if margin else start + indent, end)
        yield _piece(line, start, at, margin)
        start = at + len(text[at:]) - len(text[at:].lstrip(" "))
        margin = indent
    yield _piece(line, start, len(text), margin)


def _break(text: str, start: int, end: int) -> int:
    gaps = [gap.start() for gap in _GAP.finditer(text, start, end + 2) if start < gap.start() <= end]
    if gaps:
        return gaps[-1]
    space = text.rfind(" ", start + 1, end + 1)
    return space if space > 0 else end


def _piece(line: Sequence[Span], start: int, end: int, margin: int) -> Line:
    """Characters ``start`` to ``end`` of a line, moved in by ``margin``."""
    spans = [Span(" " * margin)] if margin else []
    at = 0
    for span in line:
        part = span.text[max(0, start - at) : max(0, end - at)]
        if part:
            spans.append(Span(part, span.style))
        at += len(span.text)
    return tuple(spans)
