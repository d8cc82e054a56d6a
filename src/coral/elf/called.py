"""Everything that the code of a function is called: what a rule about functions has to know, whichever name somebody typed.

One place can have several functions' names (aliases, and functions that the linker folded because their code is alike), and
each of those can be written in several ways. The first are kept apart, the second together: a rule that bans one of them
bans the code, and a rule that permits one way of writing a function permits that function, and no other one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from coral.elf.demangle import demangle
from coral.elf.grouping import HASH, spelled_text, without_thunk
from coral.elf.program import Program
from coral.elf.suffixes import dissect
from coral.elf.symbols import Function
from coral.model.text import printable

MOST_NAMES = 4_000
"""Of one function, in all ways of writing them. Where there are more, it is said that they are not all."""
_MOST_FUNCTIONS_READ = 2_000
_SHAPE = "go.shape."
_SHAPE_NUMBER = re.compile(r"_\d+(?=[\],])")
_ABI0 = ".abi0"


def called(program: Program, functions: Iterable[Function], name: str) -> tuple[tuple[tuple[str, ...], ...], bool]:
    """What the code at the addresses of a function is called.

    Args:
        program: The image.
        functions: All addresses of the function.
        name: What it is called in events; one way of writing the first of ``functions``.

    Returns:
        For each function that any of the addresses has a symbol of, all the ways of writing it, the first of ``functions``
        first; and whether these are all.
    """
    found: dict[str, set[str]] = {}
    seen: set[tuple[str, str]] = set()
    count = 0
    for function in functions:
        for each in (function, *program.symbols.at(function.vaddr)):
            if (each.name, each.file) in seen:
                continue
            seen.add((each.name, each.file))
            if len(seen) > _MOST_FUNCTIONS_READ or count > MOST_NAMES:
                return _sorted(found), False
            key, ways = _ways(each)
            if not found:
                ways.add(name)
            known = found.setdefault(key, set())
            count += len(ways - known)
            known |= ways
    return _sorted(found), True


def _sorted(found: dict[str, set[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(sorted(map(printable, ways))) for ways in found.values())


def _ways(function: Function) -> tuple[str, set[str]]:
    """What identifies the function of a symbol, and all the ways of writing it."""
    plain = function.name.partition("@")[0] or function.name
    source = without_thunk(dissect(function.name).source)
    text = demangle(source)
    ways = {function.name, plain, source}
    if text:
        spelling = spelled_text(text)
        ways |= {text, spelling.path + spelling.signature, spelling.path, spelling.bare}
        if found := HASH.search(source):
            ways |= {f"{way}::{found[1]}" for way in (text, spelling.path)}
    elif "[" in source or source.endswith(_ABI0):
        written = _SHAPE_NUMBER.sub("", source.replace(_SHAPE, "")).removesuffix(_ABI0)
        ways |= {source.removesuffix(_ABI0), written, _without_brackets(written)}
    if function.file:
        ways |= {f"{function.file}:{way}" for way in ways}
    return text or source, {way for way in ways if way}


def _without_brackets(text: str) -> str:
    """A name of Go without what stands in brackets."""
    kept, depth = [], 0
    for letter in text:
        depth += letter == "["
        if not depth:
            kept.append(letter)
        depth -= letter == "]" and depth > 0
    return "".join(kept)
