"""Draws pictures on a terminal: again and again while a session runs, or once."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from coral.cli.cells import cut
from coral.cli.folding import Line, Span
from coral.cli.output import emit
from coral.cli.picture import FAINT, picture, plain
from coral.cli.snapshot import Snapshot
from coral.model.text import printable

_FOOTER = Span("Ctrl-C ends the session and shows its result", FAINT)


def rendered(lines: list[Line]) -> Text:
    """The lines as Rich draws them; names in them are text, never markup."""
    return Text("\n").join(Text.assemble(*((span.text, span.style) for span in line)) for line in lines)


def print_picture(snapshot: Snapshot, *, color: bool) -> None:
    """Writes a session's picture to stdout once: with styles on a terminal, as plain text elsewhere."""
    if sys.stdout.isatty():
        console = Console(no_color=not color, highlight=False)
        console.print(rendered(picture(snapshot, width=console.width)), soft_wrap=True)
    else:
        emit(plain(picture(snapshot)))


class LivePicture:
    """A picture that stays where it is and changes; gone when the context ends."""

    def __init__(self, *, color: bool) -> None:
        self._console = Console(no_color=not color, highlight=False)
        self._live = Live(console=self._console, transient=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot, *, trouble: str = "") -> None:
        """Draws it.

        Args:
            snapshot: What to show.
            trouble: Why it may be out of date; empty when it is not.
        """
        size = self._console.size
        lines = picture(snapshot, width=size.width, cut_names=True)
        # A row is left free below: one that scrolls cannot be taken back, and would stay behind.
        del lines[max(1, size.height - 2) :]
        footer = Span(printable(trouble), "bold red") if trouble else _FOOTER
        # It leaves room for the ^C that the terminal echoes, which would otherwise begin a line of its own.
        lines.append((Span(cut(footer.text, size.width - len("^C") - 1), footer.style),))
        text = rendered(lines)
        text.no_wrap = True
        text.overflow = "ellipsis"
        self._live.update(text, refresh=True)
