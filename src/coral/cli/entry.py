"""Runs one command line, and turns whatever went wrong into a message on stderr and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

import click

from coral.cli.lazy import LazyGroup
from coral.cli.options import Globals
from coral.cli.output import discard, flush
from coral.model.errors import CoralError, InvalidArgument
from coral.model.text import printable

OK = 0
OTHER = 1
USAGE = 2
CALLS_LOST = 6
INTERRUPTED = 130
TERMINATED = 143

_EXIT_CODES = {
    "INVALID_ARGUMENT": USAGE,
    "NOT_FOUND": 3,
    "UNAUTHENTICATED": 4,
    "UNAVAILABLE": 5,
    "DEADLINE_EXCEEDED": 5,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
}

_HELP = """Debug running services without redeploying them.

Name a service and a function of it, and see every call with its duration until the time is up.
"""


def exit_code(error: CoralError) -> int:
    """The exit code that stands for an error's status."""
    return _EXIT_CODES.get(error.code, OTHER)


def run(arguments: Sequence[str], *, commands: Mapping[str, tuple[str, str]], groups: Mapping[str, str]) -> int:
    """Runs a command line.

    Args:
        arguments: What stands after the program's name.
        commands: As ``LazyGroup`` takes them.
        groups: Likewise.

    Returns:
        The exit code.
    """
    if sys.stdout is None:  # closed by who started this: nobody reads
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (for as long as the process lives)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show a name must not end the command
    # grpc's core writes to stderr by itself, also of connections that are about to be tried again. It reads this when it is
    # loaded; what matters of it comes as errors anyway.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    options = Globals()
    root = LazyGroup("", commands=commands, groups=groups, help=_HELP)
    try:
        code = _invoke(root, arguments, options)
        flush()
    except click.UsageError as error:
        code = _report_usage(error, arguments, options)
    except click.ClickException as error:
        code = _report(CoralError(error.format_message()), options.form)
    except CoralError as error:
        code = _report(error, options.form)
    except BrokenPipeError:
        discard()  # who reads has seen enough
        code = OK
    except OSError as error:
        discard()
        what = f"{printable(str(error.filename))}: " if error.filename else ""
        code = _report(CoralError(f"{what}{error.strerror or error}."), options.form)
    except (KeyboardInterrupt, click.Abort):
        code = INTERRUPTED
    return code


def _invoke(root: click.Group, arguments: Sequence[str], options: Globals) -> int:
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            raise InvalidArgument(f"The argument {printable(argument)!r} is not UTF-8.", hint="Names are UTF-8 text.")
    try:
        with root.make_context("coral", list(arguments), obj=options) as context:
            result = root.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    return result if isinstance(result, int) else OK


def _report_usage(error: click.UsageError, arguments: Sequence[str], options: Globals) -> int:
    form = options.form if options.form != "table" else _wanted_form(arguments)
    if form == "table" or isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show(sys.stderr)
        return USAGE
    path = error.ctx.command_path if error.ctx else "coral"
    return _report(InvalidArgument(error.format_message(), hint=f"See `{path} --help`."), form)


def _wanted_form(arguments: Sequence[str]) -> str:
    """What ``-o`` asks for on a line that could not be parsed to its end."""
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=False):
        for form in ("json", "jsonl"):
            if flag in (f"-o{form}", f"--output={form}") or (flag in ("-o", "--output") and value == form):
                return form
    return "table"


def _report(error: CoralError, form: str) -> int:
    if form == "table":
        lines = [f"Error: {error.message}", *([error.hint] if error.hint else [])]
        text = "\n".join(printable(line) for part in lines for line in part.splitlines())
    else:
        import json

        details = {"code": error.code, "message": error.message, "hint": error.hint, "details": error.details}
        text = json.dumps({"error": details})
    click.echo(text, err=True)
    return exit_code(error)
