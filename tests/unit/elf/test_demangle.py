"""Symbols as their source spells them, whatever somebody put into a file."""

from __future__ import annotations

import random
import time

import pytest

from coral.elf import names
from coral.elf.demangle import demangle
from coral.elf.grouping import path_of, spelled_text
from coral.elf.spelling import fit, parse
from coral.elf.symbols import Function, SymbolTable
from coral.elf.typenames import as_typed
from coral.model.addresses import Vaddr
from coral.model.errors import CoralError

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@pytest.mark.parametrize(
    ("symbol", "text"),
    [
        ("_ZZ4mainENKUliE0_clEi", "main::{lambda(int)#2}::operator()(int) const"),
        ("_ZZN3Foo3barEiENKUlT_E_clIiEEDaS0_", "auto Foo::bar(int)::{lambda(auto)#1}::operator()<int>(auto) const"),
        ("_ZNK1AcvNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEEv", "A::operator std::string() const"),
        ("_Z1fNSt7__cxx1112basic_stringIwSt11char_traitsIwESaIwEEE", "f(std::wstring)"),
        ("_Z1fNSt3__112basic_stringIcNS_11char_traitsIcEENS_9allocatorIcEEEE", "f(std::string)"),
        ("_Z4workv.resume", "work().resume"),
        ("_RNvCs5JNAybJ9MVI_1n5greet", "n::greet"),
        ("_ZN1n5greet17he1f487a046dc0f7aE", "n::greet"),
        ("main", ""),
        ("main.(*T).Get", ""),
        ("_Z", ""),
        ("?f@@YAXXZ", ""),
    ],
)
def test_a_symbol_is_spelled_as_people_do(symbol: str, text: str) -> None:
    """Lambdas as GCC and GDB number them, std::string without what is behind it, no hashes; other symbols are none."""
    assert demangle(symbol) == text


def _doubling(levels: int) -> str:
    """A symbol of which each further ten bytes double the demangled name."""
    number = lambda value: _DIGITS[value // 36] + _DIGITS[value % 36] if value >= 36 else _DIGITS[value]  # noqa: E731
    return "_Z1f1AIiiE" + "".join(f"S_IS{number(level)}_S{number(level)}_E" for level in range(levels))


def _doubling_rust(levels: int) -> str:
    text, last = "_RINvC1a1bTllE", 8
    digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for _ in range(levels):
        here, value = len(text) - 2, last - 1
        reference = (digits[value // 62] if value >= 62 else "") + digits[value % 62] + "_"
        text, last = f"{text}TB{reference}B{reference}E", here
    return text + "E"


@pytest.mark.parametrize(
    "symbol",
    [
        *(_doubling(levels) for levels in (24, 40, 70)),
        *(_doubling_rust(levels) for levels in (24, 60)),
        *("_Z1f" + "P" * 8000 + "i", "_Z1f" + "P" * 100_000 + "i", "_Z1f" + "1AI" * 2000 + "i" + "E" * 2000),
        *("_Z" + "N1A" * 2500 + "E" * 500, "_ZN" + "1A" * 4000 + "Ev", "_Z1f" + "F" * 4000 + "vE" * 2000),
        *("_R" + "Nv" * 4000 + "C1a1b", "_RNvC1a" + "I" * 3000, "_Z1fIXadL_Z" * 700 + "1gvEEEvv"),
        *("_Z999999999999999999999f", "_Z1f\udcff", "_Z1f\x1b[2Jv", "_ZN12_GLOBAL__N_1", "_Z" + "Z1f" * 2000),
    ],
)
def test_a_hostile_symbol_costs_little(symbol: str) -> None:
    """Names that would grow without bound or nest without end are left as they are, or spelled in the time of others."""
    start = time.process_time()
    text = demangle(symbol)
    assert len(text) <= 65_536
    assert text.isprintable()
    spelling = spelled_text(text or symbol)
    assert path_of(text or symbol)
    fit(spelling, spelling)
    assert time.process_time() - start < 1


def test_anything_may_be_typed() -> None:
    """Whatever brackets and operators are typed, the answer is a function or an error with a message, in no time."""
    table = SymbolTable()
    symbols = (
        "_ZN4shop5StackIiE4pushERKi",
        "_ZlsRSoRK5Shape",
        "_RNvXNtCs5JNAybJ9MVI_1n4shopNtB2_3FooNtB2_5Trait6method",
        "plain",
    )
    table.add_functions(
        "test", [Function(name=name, vaddr=Vaddr(16 * number), size_bytes=1) for number, name in enumerate(symbols, 1)]
    )
    pick = random.Random(4)
    pieces = [
        "<",
        ">",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "::",
        " ",
        ",",
        "operator",
        "'lambda'",
        "as",
        "impl ",
        "for",
        "push",
        "Stack",
    ]
    pieces += [
        "const",
        "&",
        "*",
        "->",
        ".",
        "~",
        "T",
        "#1",
        "$_0",
        "h0123456789abcdef",
        "std::string",
        "int",
        "(anonymous namespace)",
    ]
    typed = ["".join(pick.choices(pieces, k=pick.randint(1, 12))) for _ in range(3000)]
    typed += ["<" * 1000, "(" * 1000, "A<" * 500 + ">" * 500, "'lambda'" * 120, "operator" * 128, "a(" * 500, "T<T," * 250]
    start = time.process_time()
    for text in typed:
        parse(as_typed(text))
        try:
            assert names.find(table, text, "image").functions
        except CoralError as error:
            assert error.message
    assert time.process_time() - start < 20
