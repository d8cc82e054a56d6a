"""Lists for people: a drawn table on a terminal, plain aligned columns elsewhere. Rich is loaded only to draw."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

from coral.cli.cells import cell_width, pad
from coral.cli.output import emit
from coral.model.text import printable

_LEAST = 4
"""What a column that may be broken still needs."""

_GAP = 2
"""Columns of the terminal that the drawing puts between two columns of the table."""


def emit_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
    spare: Sequence[str] = (),
    color: bool,
    plain: bool = False,
) -> None:
    """Writes a table to stdout.

    Args:
        columns: Their titles.
        rows: One text per column; control characters are made visible.
        right: Titles of the columns that are aligned to the right, as numbers are.
        whole: Titles of the columns that are not broken on a narrow terminal: what is copied from there.
        spare: Titles of the columns that a narrow terminal goes without.
        color: Whether colours may be used.
        plain: Whether a terminal gets plain columns too: drawing thousands of rows takes seconds.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty() and not plain:
        _draw(columns, cells, whole, right, spare, color)
        return
    widths = [max(cell_width(line[index]) for line in (columns, *cells)) for index in range(len(columns))]
    for line in (columns, *cells):
        padded = (pad(cell, width, right=title in right) for title, cell, width in zip(columns, line, widths, strict=True))
        emit("  ".join(padded).rstrip() + "\n")


def _draw(
    columns: Sequence[str],
    cells: Sequence[Sequence[str]],
    whole: Sequence[str],
    right: Sequence[str],
    spare: Sequence[str],
    color: bool,
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(no_color=not color, highlight=False)
    widths = [max(cell_width(line[index]) for line in (columns, *cells)) for index in range(len(columns))]
    fits = sum(widths) + _GAP * len(columns) <= console.width
    shown = [index for index, title in enumerate(columns) if fits or title not in spare]
    # Where not even they fit, everything is broken: what is cut off would be lost.
    kept = [width if columns[index] in whole else _LEAST for index, width in enumerate(widths) if index in shown]
    if sum(kept) + _GAP * len(shown) > console.width:
        whole = ()
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for index in shown:
        title = columns[index]
        justify: Literal["left", "right"] = "right" if title in right else "left"
        table.add_column(Text(title), justify=justify, overflow="fold", no_wrap=title in whole)
    for row in cells:
        table.add_row(*(Text(row[index]) for index in shown))  # Text, not str: names may look like Rich's markup
    console.print(table)
