"""Go that others load: libraries for C, and plugins, each with a runtime table of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import build, go_forms
from support.go_forms import EXIT_CODE, Build
from support.stack import Stack

pytestmark = pytest.mark.kernel


def _check(stack: Stack, host: Path, library: Path, functions: tuple[str, ...]) -> None:
    """Runs a program that loads a library, and compares its tallies of the library's functions."""
    seen = go_forms.watch(stack, host, tuple(f"{library.name}!{name}" for name in functions), str(library))
    told = {name.replace("LIBRARY", library.name): tally for name, tally in seen.truth["tallies"].items()}
    assert seen.exit_code == EXIT_CODE
    assert seen.counted() == {
        name: (tally["entered"], tally["returned"], 0, 0) for name, tally in told.items() if name in seen.ledgers
    }
    assert len(seen.ledgers) == len(functions)


@pytest.mark.parametrize("flags", [(), ("-ldflags=-s -w",)], ids=["symbols", "bare"])
@pytest.mark.parametrize("version", [pytest.param(each, marks=pytest.mark.matrix) for each in ("1.21.13", "1.24.11")] + [""])
def test_a_library_for_c(stack: Stack, version: str, flags: tuple[str, ...]) -> None:
    """What C calls, and what that calls in Go, on threads that Go did not make."""
    how = Build(name="shared", flags=("-buildmode=c-shared", *flags))
    library = go_forms.compile_forms("shared", how, root=go_forms.toolchain(version) if version else None)
    _check(stack, build.c_program("calls_go"), library, ("GoWork", "main.GoWork", "main.Inner"))


@pytest.mark.matrix
@pytest.mark.parametrize("flags", [(), ("-ldflags=-s -w",)], ids=["symbols", "bare"])
@pytest.mark.parametrize("version", ["1.21.13", "1.24.11", ""])
def test_a_plugin(stack: Stack, version: str, flags: tuple[str, ...]) -> None:
    """A function of a plugin, which has a table of its own beside that of the program, on goroutines of both."""
    root = go_forms.toolchain(version) if version else None
    plugin = go_forms.compile_forms("plugged", Build(name="plugin", flags=("-buildmode=plugin", *flags)), root=root)
    host = go_forms.compile_forms("plughost", Build(name="host", flags=flags), root=root)
    _check(stack, host, plugin, ("Plugged", "Work"))
