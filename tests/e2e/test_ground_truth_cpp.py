"""A C++ program that leaves its functions in every way there is: Coral's counts equal its own, and it does not notice."""

from __future__ import annotations

from itertools import product

import pytest
from support import build
from support.observe import assert_durations
from support.observe_each import assert_as_counted
from support.stack import Stack

pytestmark = pytest.mark.kernel

FUNCTIONS = {
    "through": "throws_through",
    "catches": "catches_and_returns",
    "rethrows": "catches_and_throws_on",
    "nests": "catches_inside_of_a_catch",
    "destroys": "destroyed",
    "unlikely": "in_a_cold_part",
    "guards": "guarded_static",
    "virtually": "virtual_tail",
    "areas": "Square::area",
    "delegates": "through_thunk",
    "finals": "Square::id",
    "musts": "must_tail",
    "switches": "switches_and_throws",
    "variable": "with_variable_frame",
    "aligned": "with_aligned_frame",
    "dynamic": "with_dynamic_frame",
    "leaps": "leaps_out",
    "leaves": "leaves_thread",
    "cancels": "is_cancelled",
    "produces": "produce",
    "steps": "one_step",
    "fibres": "on_a_fibre",
    "terminates": "must_not_throw",
    "lambdas": "Callable::operator()",
    "sums": "sum_of",
    "pushes": "Stack::push",
    "slows": "slow_catch",
}
_TRAPS = ("-DTRAPS", "-fnon-call-exceptions")
"""A load that faults throws, by a signal's handler: its landing pad is no call's."""
_SLICE = [
    pytest.param("g++", ("-O2", *_TRAPS), id="g++ -O2 -fnon-call-exceptions"),
    pytest.param("clang++", ("-O0", "-fcf-protection=full"), id="clang++ -O0 -fcf-protection=full"),
]
_MATRIX = [
    *(
        (compiler, (level, *more))
        for compiler, level, more in product(
            ("g++", "clang++"), ("-O0", "-O1", "-O2", "-O3", "-Os"), ((), ("-fcf-protection=full",))
        )
    ),
    *(
        (compiler, more)
        for compiler, more in product(
            ("g++", "clang++"),
            (
                ("-O2", "-flto"),
                ("-O2", "-static"),
                ("-O2", "-static-pie"),
                ("-O0", "-static"),
                ("-O2", "-no-pie", "-fno-pie"),
                ("-O2", "-fuse-ld=lld"),
                ("-O2", "-fuse-ld=lld", "-Wl,--icf=all"),
                ("-O2", "-fno-plt"),
                ("-O2", "-fno-omit-frame-pointer", "-fstack-protector-all"),
                ("-O2", "-fstack-clash-protection", "-D_GLIBCXX_ASSERTIONS"),
                ("-O2", "-ffunction-sections", "-Wl,--gc-sections"),
                ("-O2", "-march=x86-64-v3"),
            ),
        )
    ),
    ("g++", ("-O3", "-freorder-blocks-and-partition", "-fno-inline-small-functions")),
    ("g++", ("-O2", "-fuse-ld=gold")),
    ("g++", ("-O2", "-fuse-ld=mold")),
    ("clang++", ("-O2", "-flto=thin", "-fuse-ld=lld")),
    ("g++", ("-Og", "-g3", "-pg")),
    ("g++", ("-O0", *_TRAPS)),
    ("g++", ("-O3", "-flto", *_TRAPS)),
]


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        *_SLICE,
        *(
            pytest.param(compiler, flags, id=f"{compiler} {' '.join(flags)}", marks=pytest.mark.matrix)
            for compiler, flags in _MATRIX
        ),
    ],
)
def test_every_way_out_of_a_function(stack: Stack, compiler: str, flags: tuple[str, ...]) -> None:
    """Calls, returns and what never returned are the program's own counts for each function, all of them probed at once."""
    program = build.cpp_program("hazards", *flags, compiler=compiler)
    functions = {**FUNCTIONS, "traps": "reads"} if "-DTRAPS" in flags else FUNCTIONS
    watched, truth = assert_as_counted(stack, program, functions, "--exit", 5, exit_code=5)
    assert sorted(watched["terminates"].by_pid.values()) == [1, 1]
    assert_durations(stack.cli.events(watched["slows"].session.session_id), truth["timings"])
