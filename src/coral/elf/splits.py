"""Functions that GCC inlined in part (-fpartial-inlining): callers have the head, the rest stands alone as NAME.part.0."""

from __future__ import annotations

from coral.elf.program import Program
from coral.elf.symbols import Function

# gcc/ipa-split.cc appends ``part``, gcc/cgraphclones.cc the rest; numbers count the copies of one name.
_SUFFIXES = ("", ".isra.0", ".constprop.0")


def split_off(program: Program, function: Function) -> str:
    """The name of the rest of ``function``, which callers enter that have its head in them; empty when there is none.

    Args:
        program: The image.
        function: A function that is there itself.
    """
    for suffix in _SUFFIXES:
        name = f"{function.name}.part.0{suffix}"
        found = program.symbols.by_name.get(name, ())
        if any(not function.local or each.file == function.file for each in found):
            return name
    return ""
