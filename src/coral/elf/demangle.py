"""C++ and Rust symbols as their source spells them.

LLVM's demangler (pydemumble) does the work for the Itanium C++ ABI, Rust's legacy scheme (an Itanium name that ends in a
hash) and Rust's v0 scheme (RFC 2603). It costs about 8 µs a name.
"""

from __future__ import annotations

import functools
import re

import pydemumble

from coral.elf.typenames import shorten, unnamed
from coral.model.text import printable

_LONGEST = 8192  # bytes of a symbol; the demangler recurses with the name
_LONGEST_TEXT = 65_536
_LEGACY_RUST = re.compile(r"17h[0-9a-f]{16}E(?:\.|$)")
_V0 = re.compile(r"_R[A-Z]")
_SUFFIX = re.compile(r" \((\.[^()]*)\)$")
_BACK_REFERENCE = re.compile(r"S[0-9A-Z]*_")
_SMALL_TYPES = {"SaI": "St9allocatorI", "SbI": "St12basic_stringI"}


def language(symbol: str) -> str:
    """``cpp`` or ``rust`` by how the symbol is mangled, else ``c``."""
    if symbol.startswith("_Z"):
        return "rust" if _LEGACY_RUST.search(symbol) else "cpp"
    return "rust" if _V0.match(symbol) else "c"


@functools.lru_cache(maxsize=1 << 10)
def demangle(symbol: str) -> str:
    """The symbol as the source spells it, with parameters, without Rust's hash; empty when it is not mangled.

    Lambdas and unnamed types are written as GCC and GDB do (``main::{lambda(int)#2}``), ``std::string`` as people do.
    """
    if not symbol.startswith(("_Z", "_R")) or len(symbol) > _LONGEST or not symbol.isascii() or language(symbol) == "c":
        return ""
    text = pydemumble.demangle(symbol) or _conversion(symbol)
    if len(text) > _LONGEST_TEXT:
        return ""
    if "'" in text:
        text = unnamed(text)
    if " (." in text:
        text = _SUFFIX.sub(r"\1", text)
    return printable(shorten(text))


def _conversion(symbol: str) -> str:
    """Conversion operators to types with ``std::allocator`` in them, abbreviated as Sa, which LLVM's demangler cannot read.

    Spelling it out renumbers the back references that follow, so that there must be none.
    """
    before, operator, after = symbol.partition("cv")
    if not operator or _BACK_REFERENCE.search(after):
        return ""
    for short, long in _SMALL_TYPES.items():
        after = after.replace(short, long)
    return str(pydemumble.demangle(before + operator + after))
