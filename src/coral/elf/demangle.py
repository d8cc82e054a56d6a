"""C++ and Rust symbols as their source spells them.

LLVM's demangler (pydemumble) does the work for the Itanium C++ ABI, Rust's legacy scheme (an Itanium name that ends in a
hash) and Rust's v0 scheme (RFC 2603). It costs about 8 µs a name.
"""

from __future__ import annotations

import functools
import re

import pydemumble

from coral.model.text import printable

_LONGEST = 8192  # bytes of a symbol; the demangler recurses with the name
_LEGACY_RUST = re.compile(r"(17h[0-9a-f]{16}E)(\.|$)")
_V0 = re.compile(r"_R[A-Z]")


def language(symbol: str) -> str:
    """``cpp`` or ``rust`` by how the symbol is mangled, else ``c``."""
    if symbol.startswith("_Z"):
        return "rust" if _LEGACY_RUST.search(symbol) else "cpp"
    return "rust" if _V0.match(symbol) else "c"


@functools.lru_cache(maxsize=1 << 17)
def demangle(symbol: str) -> str:
    """The symbol as the source spells it, with parameters, without Rust's hash; empty when it is not mangled."""
    if len(symbol) > _LONGEST or not symbol.isascii() or language(symbol) == "c":
        return ""
    return printable(pydemumble.demangle(symbol))
