"""The options that every command takes, anywhere on the line, and the types of their own that commands use.

Only click is imported here: this module is on the path of every help page.
"""

from __future__ import annotations

import os
from typing import Any

import click

DEFAULT_COLONY = "127.0.0.1:8081"
FORMS = ("table", "json", "jsonl")
VERBOSITY_KEY = "coral.verbosity"
"""Key of ``Context.meta`` under which a daemon's command, which does not know this package, finds the count of ``-v``."""


class Globals:
    """What the global options said; the ``obj`` of every click context.

    Attributes:
        colony: HOST:PORT from ``--colony``; empty when it was not given.
        form: ``table``, ``json`` or ``jsonl``.
        color: Whether colours may be used.
        verbosity: How often ``-v`` was given.
    """

    __slots__ = ("colony", "color", "form", "verbosity")

    def __init__(self) -> None:
        self.colony = ""
        self.form = "table"
        self.color = not os.environ.get("NO_COLOR")
        self.verbosity = 0

    @property
    def address(self) -> str:
        """Where the colony is: the option, else CORAL_COLONY, else the default."""
        return self.colony or os.environ.get("CORAL_COLONY", "") or DEFAULT_COLONY


class GlobalOption(click.Option):
    """An option that fills in ``Globals`` rather than a command's own parameters."""


def _set_colony(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Globals).colony = value


def _set_form(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Globals).form = value


def _set_color(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Globals).color = False


def _set_verbosity(context: click.Context, _parameter: click.Parameter, value: int) -> None:
    if value:
        context.ensure_object(Globals).verbosity += value
        context.meta[VERBOSITY_KEY] = context.meta.get(VERBOSITY_KEY, 0) + value


def _show_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import version

        click.echo(f"coral {version('coral-debugger')}")
        context.exit()


def global_options(*, hidden: bool) -> list[GlobalOption]:
    """New instances of the global options.

    Args:
        hidden: Left out of the help page; below the root one line says that they exist.
    """

    def option(*flags: str, **settings: Any) -> GlobalOption:
        return GlobalOption(flags, expose_value=False, hidden=hidden, **settings)

    return [
        option(
            "--colony",
            metavar="HOST:PORT",
            callback=_set_colony,
            help=f"Which colony to ask; also CORAL_COLONY. [default: {DEFAULT_COLONY}]",
        ),
        option("-o", "--output", type=click.Choice(FORMS), callback=_set_form, help="How results are written."),
        option("--no-color", is_flag=True, callback=_set_color, help="No colours; also NO_COLOR."),
        option("-v", "--verbose", count=True, callback=_set_verbosity, help="Say more."),
        option("--version", is_flag=True, is_eager=True, callback=_show_version, help="Show the version and exit."),
    ]


class Duration(click.ParamType[int]):
    """A duration with its unit, in ns."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The nanoseconds of ``value``."""
        from coral.model.errors import InvalidArgument
        from coral.model.text import parse_duration

        if isinstance(value, int):
            return value
        try:
            return parse_duration(value)
        except InvalidArgument as error:
            self.fail(str(error), param, ctx)


class Moment(click.ParamType[int]):
    """A time: RFC 3339, or a duration ago. In ns since the epoch."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The nanoseconds since the epoch of ``value``."""
        import time

        from coral.cli.times import parse_moment
        from coral.model.errors import InvalidArgument

        if isinstance(value, int):
            return value
        try:
            return parse_moment(value, now_ns=time.time_ns())
        except InvalidArgument as error:
            self.fail(str(error), param, ctx)


DURATION = Duration()
MOMENT = Moment()
