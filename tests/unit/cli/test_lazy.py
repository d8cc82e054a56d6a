"""Groups that know their commands by name only."""

from __future__ import annotations

import sys
from types import ModuleType

import click
import pytest

from coral.cli.entry import run

GROUPS = {"agent": "The hosts.", "debug": "Debug.", "debug session": "Sessions."}
COMMANDS = {
    "agent start": ("fake_daemon:start", "Start it."),
    "debug attach": ("no.such.module:attach", "Attach."),
    "debug session list": ("no.such.module:list", "List."),
}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, int]]:
    """A daemon's command that has a --colony of its own, as the agent's has; collects what it was started with."""
    calls: list[tuple[str | None, int]] = []

    @click.command()
    @click.option("--colony")
    def start(colony: str | None) -> None:
        calls.append((colony, click.get_current_context().meta.get("coral.verbosity", 0)))

    module = ModuleType("fake_daemon")
    module.start = start  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_daemon", module)
    return calls


def test_a_commands_own_colony_option(started: list[tuple[str | None, int]]) -> None:
    """It takes the value wherever on the line --colony stands, its own place winning; -v is counted over the whole line."""
    for line in ("agent start", "--colony a:1 agent start", "agent --colony a:1 start --colony b:2", "-v agent start -vv"):
        assert run(line.split(), commands=COMMANDS, groups=GROUPS) == 0
    assert started == [(None, 0), ("a:1", 0), ("b:2", 0), (None, 3)]


def test_help_lists_what_it_does_not_load(capsys: pytest.CaptureFixture[str]) -> None:
    """The list of a group comes from the table: a command whose module is missing is in it."""
    assert run(["debug", "--help"], commands=COMMANDS, groups=GROUPS) == 0
    assert capsys.readouterr().out.splitlines()[-6:] == [
        "Commands:",
        "  attach   Attach.",
        "  session  Sessions.",
        "",
        "  Anywhere on the line: --colony HOST:PORT, -o table|json|jsonl, --no-color,",
        "  -v. See coral --help.",
    ]


def test_without_a_command_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2, with the help page on stderr."""
    assert run([], commands=COMMANDS, groups=GROUPS) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: coral [OPTIONS] COMMAND [ARGS]...\n")
