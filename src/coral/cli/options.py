"""The options that every command takes, anywhere on the line, and the types of their own that commands use.

Only click is imported here: this module is on the path of every help page.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from coral.client.endpoint import Endpoint

DEFAULT_COLONY = "127.0.0.1:8081"
FORMS = ("table", "json", "jsonl")
VERBOSITY_KEY = "coral.verbosity"
"""Key of ``Context.meta`` under which a daemon's command, which does not know this package, finds the count of ``-v``."""


class Globals:
    """What the global options said; the ``obj`` of every click context.

    Attributes:
        colony: HOST:PORT from ``--colony``; empty when it was not given.
        ca: File from ``--ca``, with the certificate of the colony's authority; empty when it was not given.
        cert: File from ``--cert``, with a certificate to show; likewise.
        key: File from ``--key``, with its key; likewise.
        form: ``table``, ``json`` or ``jsonl``.
        color: Whether colours may be used.
        verbosity: How often ``-v`` was given.
    """

    __slots__ = ("_inside", "ca", "cert", "colony", "color", "form", "key", "verbosity")

    def __init__(self) -> None:
        self._inside = ""
        self.colony = ""
        self.ca = ""
        self.cert = ""
        self.key = ""
        self.form = "table"
        self.color = not os.environ.get("NO_COLOR")
        self.verbosity = 0

    @property
    def named(self) -> str:
        """The colony that was named: by the option, else by CORAL_COLONY; empty if none was."""
        return self.colony or os.environ.get("CORAL_COLONY", "")

    def use_inside(self, address: str) -> None:
        """Asks a colony that lives inside the command: without credentials, whatever the line and the environment say."""
        self._inside = address

    def endpoint(self) -> Endpoint:
        """The colony to ask, how to know it, and what to show it.

        Raises:
            CoralError: A file with a certificate, a key or the contexts cannot be used.
        """
        from coral.cli.endpoints import find_endpoint
        from coral.client.endpoint import Endpoint

        return Endpoint(address=self._inside) if self._inside else find_endpoint(self)


class GlobalOption(click.Option):
    """An option that fills in ``Globals`` rather than a command's own parameters."""


def _set_colony(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Globals).colony = value


def _set_file(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        setattr(context.ensure_object(Globals), str(parameter.name), value)


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
            help=f"Which colony to ask; also CORAL_COLONY. [default: the context's, else {DEFAULT_COLONY}]",
        ),
        option(
            "--ca", metavar="FILE", callback=_set_file, help="The colony's ca.pem; also CORAL_CA. [default: the context's]"
        ),
        option("--cert", metavar="FILE", callback=_set_file, help="A certificate to show instead of a token."),
        option("--key", metavar="FILE", callback=_set_file, help="The key of that certificate."),
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
