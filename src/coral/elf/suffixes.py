"""What compilers append to the symbol of a function that they copied, split or renamed.

GCC (gcc/cgraphclones.cc, gcc/lto/lto-partition.cc) and LLVM (llvm/lib/Transforms) write ``.WORD`` and mostly ``.NUMBER``
behind the name, several of them one after the other: ``work.constprop.0.isra.0.cold``.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import NamedTuple

from coral.elf.demangle import language

# A copy for some of the callers, with the whole body: its calls are calls of the function.
_CLONE = r"(?:constprop|isra|specialized)\.\d+|(?:argprom|argelim|retelim|localalias)(?:\.\d+)?"
# A piece of a body that stands elsewhere: some of the calls go on there.
_PIECE = r"part\.\d+|(?:cold|warm)(?:\.\d+)?"
# One of several static functions of a name, renamed so that they can live side by side in one unit.
_RENAMED = r"(?:lto_priv|llvm|__uniq)\.\d+"
# One function inside of another (GNU C, Fortran, Ada), or one of several static ones of a name after LTO of all units.
# What Go calls so has the name of its package before it.
_NUMBERED = re.compile(r"([A-Za-z_]\w*)(\.\d+)")
_SUFFIX = re.compile(rf"\.(?:(?P<clone>{_CLONE})|(?P<piece>{_PIECE})|(?P<renamed>{_RENAMED}))$")


class Symbol(NamedTuple):
    """A symbol taken apart.

    Attributes:
        source: The name in the source (mangled where the language does that).
        renamed: What tells it from static functions of the same name, and the version of an old one (``@GLIBC_2.2.5``).
        clone: Whether it is a copy beside the function.
        piece: Whether it is only a piece of a function.
    """

    source: str
    renamed: str = ""
    clone: bool = False
    piece: bool = False


def dissect(name: str, known: Container[str] = ()) -> Symbol:
    """A symbol taken apart.

    Args:
        name: The symbol.
        known: The other symbols of the file. ``main.cold`` is a piece of ``main`` where that is one of them, and else a Go
            function.
    """
    source, at, version = name.partition("@")
    if "." not in source:
        return Symbol(source, at + version)
    renamed, clone, piece = at + version, False, False
    while found := _SUFFIX.search(source):
        before = source[: found.start()]
        if found["piece"]:
            if found["piece"] in ("cold", "warm") and before not in known:
                break
            piece = True
        elif found["clone"] or language(before) == "rust":
            clone = True  # Rust's units have a copy each of what they share, told apart by .llvm.NUMBER
        else:
            renamed = found[0] + renamed
        source = before
    if numbered := _NUMBERED.fullmatch(source):
        source, renamed = numbered[1], numbered[2] + renamed
    return Symbol(source, renamed, clone, piece)
