"""Go functions of every form, in every build: Coral counts what the program counted, and the program never notices."""

from __future__ import annotations

import pytest
from support import go_forms
from support.go_forms import EXIT_CODE, Build, Watched
from support.stack import Stack

pytestmark = pytest.mark.kernel

FORMS = (
    *("main.(*Counter).Add", "main.(*Counter).Add-fm", "main.(*Outer).Add", "main.Point.Sum", "main.(*Point).Sum"),
    *("main.closures", "main.closures.func1", "main.Largest", "main.Largest[string]", "main.(*List).Push"),
    *("main.(*List[int]).Push", "main.Deferred", "main.Switch", "main.Mix", "main.AddAssembly"),
    *("main.Thrower", "main.Middle", "main.Catcher", "main.Rethrow", "main.Leaver", "main.Deep", "main.Large", "main.Shrink"),
    *("main.Locked", "main.Blocking", "main.Worker", "main.Handled", "main.Slow"),
)
RUNTIME = (
    *("runtime.mallocgc", "runtime.memmove", "runtime.gopark", "runtime.schedule", "runtime.mcall", "runtime.newstack"),
    *("runtime.sighandler", "runtime.gcDrain", "runtime.findRunnable", "runtime.futex"),
)
CALLBACKS = (
    *("main.Down", "main.goCallback", "goCallback", "main.Grow", "c_work", "c_calls_go", "c_thread"),
    "main._Cfunc_c_calls_go",
)
NAMELESS_INSTANCES = frozenset(("1.19",))
"""Their table of functions calls every instance of a generic main.Largest[...]; only symbols say which is which."""
VERSIONS = ("1.19", "1.21.13", "1.22.10", "1.23.9", "1.24.11", "1.25.5", "1.26.6", "")
BUILDS = (
    Build(name="plain"),
    Build(name="bare", flags=("-ldflags=-s -w",)),
    Build(name="stripped", strip=True),
    Build(name="pie", flags=("-buildmode=pie",)),
    Build(name="bare pie", flags=("-buildmode=pie", "-ldflags=-s -w", "-trimpath")),
    Build(name="unoptimized", flags=("-gcflags=all=-N -l",)),
    Build(name="v2", env={"GOAMD64": "v2"}),
    Build(name="v3", env={"GOAMD64": "v3"}),
    Build(name="external", flags=("-ldflags=-linkmode=external",)),
    Build(name="race", flags=("-race",)),
)
_ASAN = Build(name="asan", flags=("-asan",))


def check(stack: Stack, how: Build, version: str, functions: tuple[str, ...] = FORMS + RUNTIME) -> Watched:
    """Runs the program in one build without Coral and with it, and compares everything."""
    program = go_forms.compile_forms("forms", how, root=go_forms.toolchain(version) if version else None)
    if version in NAMELESS_INSTANCES and (how.strip or "-ldflags=-s -w" in how.flags):
        functions = tuple(name for name in functions if "[" not in name)
    seen = go_forms.watch(stack, program, functions)
    assert seen.counted() | seen.told() == seen.counted()
    assert (seen.output, seen.exit_code) == go_forms.truth_without_coral(program)
    assert seen.exit_code == EXIT_CODE
    leaver, gone = seen.ledgers["main.Leaver"], seen.truth["tallies"]["main.Leaver"]["gone"]
    if how.name != "unoptimized":  # where the code does not say where a goroutine's number is, calls stay open
        assert (leaver["no_return"], leaver["open"]) == (gone, 0)
    for name, ledger in seen.ledgers.items():
        if name.startswith("main."):
            assert ledger["stored"] == ledger["returned"], name
    return seen


@pytest.mark.parametrize("how", [BUILDS[2]], ids=lambda how: how.name)
def test_every_form_of_a_function_is_counted_exactly(stack: Stack, how: Build) -> None:
    """Methods, closures, generics, assembly, panics, moving stacks, threads, signals: of a program without symbols, too."""
    seen = check(stack, how, "")
    slow = stack.cli.events(seen.sessions["main.Slow"])
    for span, event in zip(seen.truth["slow"], slow, strict=True):
        assert span["inner_ns"] <= event["duration_ns"] <= span["outer_ns"]


@pytest.mark.matrix
@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version or "pinned")
@pytest.mark.parametrize("how", BUILDS, ids=lambda how: how.name)
def test_every_version_in_every_build(stack: Stack, version: str, how: Build) -> None:
    """The same of each version of Go that there is, in each way to build."""
    check(stack, how, version)


@pytest.mark.parametrize("how", [Build(name="plain")], ids=lambda how: how.name)
def test_calls_between_go_and_c(stack: Stack, how: Build) -> None:
    """Calls through cgo in both directions, on threads of Go and of C, with stacks that grow in between."""
    check_callbacks(stack, how, "")


def check_callbacks(stack: Stack, how: Build, version: str) -> None:
    """As ``check``, for the program that calls C and is called by it."""
    program = go_forms.compile_forms("callbacks", how, root=go_forms.toolchain(version) if version else None)
    # C that an outside linker took in is in no table of Go's: without symbols nothing tells its names.
    nameless = how.strip or "-ldflags=-s -w" in how.flags
    functions = tuple(name for name in CALLBACKS if not nameless or name.startswith(("main.", "goCallback")))
    if how.name == "race" and version in ("1.19", "1.21.13"):  # its calls of the race detector may lose the goroutine
        functions = tuple(name for name in functions if "_Cfunc_" not in name)
    seen = go_forms.watch(stack, program, functions)
    assert seen.counted() == seen.told()
    assert (seen.output, seen.exit_code) == go_forms.truth_without_coral(program)


@pytest.mark.matrix
@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version or "pinned")
@pytest.mark.parametrize("how", [*BUILDS[:6], BUILDS[-1], _ASAN], ids=lambda how: how.name)
def test_calls_between_go_and_c_in_every_version(stack: Stack, version: str, how: Build) -> None:
    """The same of each version of Go that there is."""
    check_callbacks(stack, how, version)
