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
# Names of 8 MB at most get through. Of the 74,000 functions of LLVM, libstdc++ and Rust's library five do not, of 800 bytes.
_LARGEST_ESTIMATE = 1 << 26
_LARGEST_V0_ESTIMATE = 1 << 20
_HARMLESS_REFERENCES = 8
_LONGEST_ABBREVIATED_BYTES = 80  # std::basic_string<...> for Ss
_LONGEST_BUILT_IN_BYTES = 20
_OPENING = {False: frozenset("NIJFXL"), True: frozenset("ITFD")}
_LEGACY_RUST = re.compile(r"17h[0-9a-f]{16}E(?:\.|$)")
_HASH = re.compile(r"::h[0-9a-f]{16}(?=$| \()")  # which some releases of the demangler leave and others take away
_V0 = re.compile(r"_R[A-Z]")
_SUFFIX = re.compile(r" \((\.[^()]*)\)$")
_BACK_REFERENCE = re.compile(r"S[0-9A-Z]*_")
_ITANIUM_TOKEN = re.compile(r"(\d+)|S[0-9A-Z]*_|T[0-9A-Z]*_|S[a-z]|[NIJFXE]|L(?!\d)|[^\d]")
_V0_TOKEN = re.compile(r"s[0-9A-Za-z]*_|(\d+)_?|B[0-9A-Za-z]*_|[ITFDE]|[^\d]")
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
    if not symbol.startswith(("_Z", "_R")) or len(symbol) > _LONGEST or language(symbol) == "c":
        return ""
    try:
        in_bytes = symbol.encode()  # in which the lengths inside of it are
    except UnicodeEncodeError:
        return ""
    references = symbol.count("S") + symbol.count("T") + symbol.count("B")
    if references > _HARMLESS_REFERENCES and _explodes(in_bytes.decode("latin-1")):
        return ""
    text = pydemumble.demangle(symbol) or _conversion(symbol)
    if len(text) > _LONGEST_TEXT:
        return ""
    if "'" in text:
        text = unnamed(text)
    if _LEGACY_RUST.search(symbol):
        text = _HASH.sub("", text)
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


def _explodes(symbol: str) -> bool:
    """Whether the demangled name could be huge: a back reference can repeat a whole type that has references itself, so that
    200 bytes could ask for gigabytes. What a reference repeats is taken for the longest type that there is before it.
    """
    v0 = symbol.startswith("_R")
    token, largest = (_V0_TOKEN, _LARGEST_V0_ESTIMATE) if v0 else (_ITANIUM_TOKEN, _LARGEST_ESTIMATE)
    at, longest, open_bytes, opened_by = 2, 1, [0], [""]
    while at < len(symbol) and sum(open_bytes) <= largest:
        found = token.match(symbol, at)
        if found is None:
            return True
        at, text = found.end(), found[0]
        if found[1]:
            size = min(int(found[1][:6]), len(symbol))
            at += size
            open_bytes[-1] += size + 2
        elif text == "E":
            size = open_bytes.pop() if len(open_bytes) > 1 else open_bytes[0]
            opened_by = opened_by[: len(open_bytes)]
            longest = max(longest, size)
            open_bytes[-1] += size + 2
        elif text[-1] == "_" and text[0] in "STB":
            prefixes = (size for size, by in zip(open_bytes, opened_by, strict=True) if by == "N")
            open_bytes[-1] += max(longest, *prefixes, 0)
        elif text in _OPENING[v0]:
            open_bytes.append(0)
            opened_by.append(text)
        else:
            open_bytes[-1] += _LONGEST_ABBREVIATED_BYTES if len(text) == 2 else _LONGEST_BUILT_IN_BYTES
    return sum(open_bytes) > largest
