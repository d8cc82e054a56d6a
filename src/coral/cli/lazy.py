"""A click group that knows its commands by name and imports one only when it runs, or when its own help is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

from coral.cli.options import GlobalOption, Globals, global_options

_ANYWHERE = "Anywhere on the line: --colony HOST:PORT, -o table|json|jsonl, --no-color, -v. See coral --help."


class LazyGroup(click.Group):
    """Commands and groups below one path, from tables of all of them."""

    def __init__(
        self, path: str, *, commands: Mapping[str, tuple[str, str]], groups: Mapping[str, str], help: str | None = None
    ) -> None:
        """Describes the group; imports nothing.

        Args:
            path: The words that lead here, such as ``debug session``; empty for the root.
            commands: By path, ``module:attribute`` of each command and its one-line help.
            groups: By path, each group's one-line help.
            help: What the help page says first; None for the group's one-line help.
        """
        super().__init__(
            name=path.rpartition(" ")[2] or "coral",
            help=help or groups.get(path),
            params=list(global_options(hidden=bool(path))),
            epilog=_ANYWHERE if path else None,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        )
        self._path = path
        self._commands = commands
        self._groups = groups

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names below this path, in the order of the tables, groups where their first command stands."""
        names: dict[str, None] = {}
        depth = len(self._path.split())
        for path in self._commands:
            words = path.split()
            if words[:depth] == self._path.split() and len(words) > depth:
                names[words[depth]] = None
        return list(names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command or group of that name, loaded; None if there is none."""
        path = f"{self._path} {cmd_name}".strip()
        if path in self._groups:
            return LazyGroup(path, commands=self._commands, groups=self._groups)
        if path not in self._commands:
            return None
        module, _, attribute = self._commands[path][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        _equip(command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that ``args`` starts with.

        Raises:
            NoSuchCommand: There is none; with the nearest names.
        """
        name = args[0]
        if not name.startswith("-") and name not in self.list_commands(ctx):
            raise click.exceptions.NoSuchCommand(name, possibilities=self.list_commands(ctx), ctx=ctx)
        found, command, rest = super().resolve_command(ctx, args)
        colony = ctx.ensure_object(Globals).colony
        if command is not None and colony and any(_is_own_colony(parameter) for parameter in command.params):
            # The agent has a --colony of its own; one that stands before the command's name counts for it too.
            ctx.default_map = {**(ctx.default_map or {}), name: {"colony": colony}}
        return found, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands from the tables, without loading any."""
        rows = []
        for name in self.list_commands(ctx):
            path = f"{self._path} {name}".strip()
            rows.append((name, self._groups[path] if path in self._groups else self._commands[path][1]))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _is_own_colony(parameter: click.Parameter) -> bool:
    return parameter.name == "colony" and not isinstance(parameter, GlobalOption)


def _equip(command: click.Command) -> None:
    """Adds the global options that the command has not got, once."""
    if any(isinstance(parameter, GlobalOption) for parameter in command.params):
        return
    taken = {flag for parameter in command.params for flag in parameter.opts}
    command.params.extend(option for option in global_options(hidden=True) if not taken.intersection(option.opts))
    command.context_settings.setdefault("help_option_names", ["-h", "--help"])
    command.context_settings.setdefault("max_content_width", 110)
    command.epilog = command.epilog or _ANYWHERE
