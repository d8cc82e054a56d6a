"""A Rust program that leaves its functions in every way there is: Coral's counts equal its own, and it does not notice."""

from __future__ import annotations

import signal

import pytest
from support import build
from support.observe_each import assert_as_counted
from support.stack import Stack

pytestmark = pytest.mark.kernel

FUNCTIONS = {
    "through": "panics_through",
    "catches": "catches_and_returns",
    "resumes": "resumes_with_another",
    "drops": "hazards::dropped",
    "glues": "lets_go",
    "matches": "matches_many",
    "tails": "ends_in_a_call",
    "lasts": "last_of_all",
    "generics": "larger_of",
    "closures": "applies",
    "traits": "<hazards::Square as hazards::Shape>::area",
    "dynamic": "<hazards::Circle as hazards::Shape>::area",
    "polls": "polls_once",
    "inner_polls": "<hazards::Turns as core::future::future::Future>::poll",
    "ends": "ends_its_thread",
    "aborts": "must_not_panic",
    "bounds": "out_of_bounds",
    "overflows": "overflows_sometimes",
    "locked": "while_locked",
    "large": "large_frame",
    "results": "parses",
}
_SLICE = [pytest.param(("-O",), id="release")]
_MATRIX = [
    ("-C", "opt-level=0"),
    ("-O", "-C", "symbol-mangling-version=v0"),
    ("-C", "opt-level=1"),
    ("-C", "opt-level=3"),
    ("-C", "opt-level=s"),
    ("-C", "opt-level=z"),
    ("-C", "symbol-mangling-version=v0"),
    ("-O", "-C", "lto=fat"),
    ("-O", "-C", "lto=thin"),
    ("-O", "-C", "lto=fat", "-C", "codegen-units=1", "-C", "symbol-mangling-version=v0"),
    ("-O", "-C", "debuginfo=2"),
    ("-O", "-C", "force-frame-pointers=yes"),
    ("-O", "-C", "target-cpu=x86-64-v3"),
    ("-O", "-C", "relocation-model=static"),
    ("-O", "-C", "link-arg=-fuse-ld=lld"),
    ("-O", "-C", "link-arg=-fuse-ld=mold"),
    ("-C", "overflow-checks=yes", "-C", "opt-level=2"),
]


@pytest.mark.parametrize(
    "flags", [*_SLICE, *(pytest.param(flags, id=" ".join(flags), marks=pytest.mark.matrix) for flags in _MATRIX)]
)
def test_every_way_out_of_a_function(stack: Stack, flags: tuple[str, ...]) -> None:
    """Calls, returns and what never returned are the program's own counts for each function, all of them probed at once."""
    program = build.rust_program("hazards", *flags)
    watched, _ = assert_as_counted(stack, program, FUNCTIONS, "--exit", 5, exit_code=5)
    assert sorted(watched["aborts"].by_pid.values()) == [1, 1]


def test_a_panic_that_ends_the_program(stack: Stack) -> None:
    """A program built with panic=abort ends by its own signal, probed or not, and its last call has not returned."""
    program = build.rust_program("hazards", "-C", "panic=abort")
    functions = {name: FUNCTIONS[name] for name in ("through", "drops", "aborts")}
    assert_as_counted(stack, program, functions, "--abort", 1, exit_code=-signal.SIGABRT)
