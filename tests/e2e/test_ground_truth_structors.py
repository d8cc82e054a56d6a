"""One function of C++ that is many symbols is counted once for each call: variants, thunks, instances, overloads."""

from __future__ import annotations

from itertools import product

import pytest
from support import build
from support.observe_each import assert_as_counted
from support.stack import Stack

pytestmark = pytest.mark.kernel

FUNCTIONS = {
    "makes": "Both::Both",
    "unmakes": "Both::~Both",
    "joins": "Joined::Joined",
    "unjoins": "~Joined",
    "tops": "Top::Top()",
    "untops": "Top::~Top",
    "seconds": "Both::second",
    "selves": "Both::self2",
    "pushes": "Stack<T>::push",
    "stringpushes": "shop::Stack<std::string>::push",
    "ints": "shop::over(long)",
    "texts": "over(const string &)",
    "converts": "convert",
    "shifts": "shop::operator<<",
    "casts": "Both::operator std::string",
    "tinies": "Tiny::~Tiny",
}
_MATRIX = [
    *product(("g++", "clang++"), ("-O0", "-O1", "-O2", "-O3", "-Os"), ("", "-fPIC -fsemantic-interposition", "-flto")),
    *product(
        ("g++",), ("-O2",), ("-fno-devirtualize", "-fno-plt -fPIC", "-fdeclone-ctor-dtor", "-static", "-fsanitize=address")
    ),
    *product(("clang++",), ("-O2",), ("-fno-inline", "-fuse-ld=lld -Wl,--icf=all", "-flto=thin -fuse-ld=lld")),
]
_SLICE = [("g++", "-Os", ""), ("clang++", "-O2", "")]


@pytest.mark.parametrize(
    ("compiler", "level", "more"),
    [
        *_SLICE,
        *(pytest.param(*each, marks=pytest.mark.matrix) for each in _MATRIX if each not in _SLICE),
    ],
)
def test_each_call_counts_once(stack: Stack, compiler: str, level: str, more: str) -> None:
    """Calls, returns and exceptions of each function are what the program counted, whichever symbols the compiler made."""
    program = build.cpp_program("structors", level, *more.split(), compiler=compiler)
    assert_as_counted(stack, program, FUNCTIONS)
