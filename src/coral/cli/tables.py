"""Lists for people: a drawn table on a terminal, plain aligned columns elsewhere. Rich is loaded only to draw."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from coral.cli.output import emit
from coral.model.text import printable


def emit_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = (), color: bool) -> None:
    """Writes a table to stdout.

    Args:
        columns: Their titles.
        rows: One text per column; control characters are made visible.
        right: Titles of the columns that are aligned to the right, as numbers are.
        color: Whether colours may be used.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(columns, cells, right, color)
        return
    widths = [max(len(line[index]) for line in (columns, *cells)) for index in range(len(columns))]
    for line in (columns, *cells):
        padded = (
            cell.rjust(width) if title in right else cell.ljust(width)
            for title, cell, width in zip(columns, line, widths, strict=True)
        )
        emit("  ".join(padded).rstrip() + "\n")


def _draw(columns: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[str], color: bool) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for title in columns:
        table.add_column(Text(title), justify="right" if title in right else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))  # Text, not str: names may look like Rich's markup
    Console(no_color=not color, highlight=False).print(table)
