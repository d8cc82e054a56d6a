"""Types of C++ and Rust as text, and whether one that somebody typed is one that a name has.

``greet(const string&)`` has to find ``greet(std::string const&)``: where const stands, blanks, typedefs of the standard
library, namespaces and default template arguments may be left out or written differently.
"""

from __future__ import annotations

import enum
import functools
import re
from dataclasses import dataclass

_DEEPEST = 12
_CLOSES = {"<": ">", "(": ")", "[": "]", "{": "}"}
_BRACKET = re.compile(r"->| (?:<=>|<<=?|>>=?|<=|>=|<|>) |[<>()\[\]{}]")
_COMMA_OR_BRACKET = re.compile(r",|" + _BRACKET.pattern)
_INLINE_NAMESPACES = frozenset(("__cxx11", "__1", "__ndk1", "_V2"))
_STANDARD_DEFAULTS = re.compile(
    r"(?:std|alloc)::(?:\w+::)*(?:allocator|char_traits|default_delete|less|hash|equal_to|Global)\b"
)
_BUILT_IN = re.compile(r"(?:(?:unsigned|signed|long|short|int|char|double|__int128)\b ?)+")
_ELABORATED = re.compile(r"(?:typename|struct|class|enum|union) ")
_HEAD = re.compile(r"(?:&mut |&|\*const |\*mut |dyn )+")
_WORD = re.compile(r"[\w$.]+")
_CLONE_NOTE = re.compile(r"(?: \[clone [^\]]*\])+$")
_ENTITY = re.compile(r"'(lambda|unnamed)(\d*)'")
_PLACEHOLDER = re.compile(r"[A-Z][0-9]?")

# <stdint.h> and <stddef.h> on x86-64 Linux.
_TYPEDEFS = {
    **dict.fromkeys(("size_t", "uint64_t", "uintptr_t", "uintmax_t"), "unsigned long"),
    **dict.fromkeys(("ssize_t", "int64_t", "intptr_t", "intmax_t", "ptrdiff_t"), "long"),
    "uint32_t": "unsigned int",
    "int32_t": "int",
    "uint16_t": "unsigned short",
    "int16_t": "short",
    "uint8_t": "unsigned char",
    "int8_t": "signed char",
}
_CHARACTERS = {"": "char", "w": "wchar_t", "u8": "char8_t", "u16": "char16_t", "u32": "char32_t"}


def _aliases() -> dict[str, tuple[str, tuple[str, ...]]]:
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for prefix, character in _CHARACTERS.items():
        traits = f"std::char_traits<{character}>"
        found[f"{prefix}string"] = ("basic_string", (character, traits, f"std::allocator<{character}>"))
        found[f"{prefix}string_view"] = ("basic_string_view", (character, traits))
        if prefix in ("", "w"):
            for stream in ("ostream", "istream", "iostream", "ios", "streambuf"):
                found[f"{prefix}{stream}"] = (f"basic_{stream}", (character, traits))
    return found


ALIASES = _aliases()
"""Typedefs of the standard library in std: the template behind each and its arguments."""

_LONG = {f"{name}<{', '.join(arguments)}>": short for short, (name, arguments) in ALIASES.items()}
_SHORTEN = re.compile(r"\bstd::(?:(?:__cxx11|__1|__ndk1|_V2)::)+")
_ALIASED = re.compile(
    r"\bstd::(" + "|".join(re.escape(name) for name in sorted(_LONG, key=len, reverse=True)) + r")(?![\w<])"
)


class Unreadable(Exception):
    """The text has brackets that do not match, or is of a form that is not known here."""


class Fit(enum.IntEnum):
    """How well what was typed fits a name; the least is the best."""

    EXACT = 0
    LOOSE = 1
    """Namespaces, default arguments or trait left out."""
    PLACEHOLDER = 2
    """A type parameter (``T``) stands for a type, or arguments were left out."""
    BY_TRAIT = 3
    """Named by the trait, of which there may be many implementations."""


def shorten(text: str) -> str:
    """``text`` with the standard library's inline namespaces left out and its typedefs put in (``std::string``)."""
    if "std::_" in text:
        text = _SHORTEN.sub("std::", text)
    return _ALIASED.sub(lambda found: f"std::{_LONG[found[1]]}", text) if "std::basic_" in text else text


def as_typed(text: str) -> str:
    """What somebody typed, written as names are written here: blanks, GDB's and LLVM's lambdas, ``std::string`` in full."""
    text = _CLONE_NOTE.sub("", " ".join(text.split()))
    text = re.sub(r" ?(,|::|\)|>|\]) ?(?=[,:)>\]])", r"\1", text)
    text = re.sub(r"(?<=\w) (?=[<(*&])|(?<=[(<\[]) | (?=[,)\]])", "", text)
    text = re.sub(r"(?<!\boperator), ?", ", ", re.sub(r"\boperator ?, ?", "operator,", text))
    return shorten(unnamed(text))


def unnamed(text: str) -> str:
    """``'lambda0'(int)`` of LLVM as GCC has it, ``{lambda(int)#2}``; ``'unnamed'`` as ``{unnamed type#1}``."""
    while found := _ENTITY.search(text):
        number = int(found[2][:4]) + 2 if found[2] else 1
        end = found.end()
        if found[1] == "lambda":
            try:
                while end < len(text) and text[end] in "<(":
                    end = closing(text, end)
            except Unreadable:
                return text
        name = f"{{lambda{text[found.end() : end]}#{number}}}" if found[1] == "lambda" else f"{{unnamed type#{number}}}"
        text = text[: found.start()] + name + text[end:]
    return text


def tight(text: str) -> str:
    """``text`` without the blanks that mean nothing."""
    text = text.strip()
    return re.sub(r"\s*([^\w\s$.])\s*", r"\1", text) if " " in text else text


def closing(text: str, at: int) -> int:
    """Behind the bracket that closes the one at ``at``; arrows and comparisons between blanks are none.

    Raises:
        Unreadable: There is none.
    """
    open_brackets: list[str] = []
    for found in _BRACKET.finditer(text, at):
        bracket = found[0]
        if bracket in _CLOSES:
            open_brackets.append(_CLOSES[bracket])
        elif len(bracket) == 1:
            if bracket != ">":
                while open_brackets and open_brackets[-1] == ">" != bracket:
                    open_brackets.pop()  # a "less than"
            if not open_brackets or open_brackets[-1] != bracket:
                if bracket == ">":
                    continue  # a "greater than"
                raise Unreadable
            open_brackets.pop()
            if not open_brackets:
                return found.end()
    raise Unreadable


def split(text: str) -> tuple[str, ...]:
    """The parts of ``text`` between commas outside of all brackets; brackets that do not match are taken as they come."""
    if "," not in text:
        return (text.strip(),) if text.strip() else ()
    parts, start = [], 0
    open_brackets: list[str] = []
    for found in _COMMA_OR_BRACKET.finditer(text):
        token = found[0]
        if token == ",":
            if not open_brackets:
                parts.append(text[start : found.start()].strip())
                start = found.end()
        elif token in _CLOSES:
            open_brackets.append(_CLOSES[token])
        elif len(token) == 1 and token in open_brackets:
            while open_brackets.pop() != token:
                pass
    parts.append(text[start:].strip())
    return tuple(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class _Type:
    """A type taken apart: what is before it (``&mut``), its path with arguments, and what is behind it (``const*``)."""

    head: str
    path: tuple[tuple[str, tuple[str, ...] | None], ...]
    tail: str


@functools.lru_cache(maxsize=1 << 14)
def _type(text: str) -> _Type | None:
    """``text`` taken apart; None when it is no plain type (a function, a tuple, a value)."""
    head = _HEAD.match(text)
    at = head.end() if head else 0
    constant = False
    while True:
        rest = text[at:]
        if rest.startswith(("const ", "volatile ")):
            constant = constant or rest.startswith("const ")
            at += rest.index(" ") + 1
        elif elaborated := _ELABORATED.match(rest):
            at += elaborated.end()
        else:
            break
    built_in = _BUILT_IN.match(text, at)
    if built_in and (built_in.end() == len(text) or not re.match(r"[\w:<$]", text[built_in.end() :])):
        words = built_in[0].split()
        at = built_in.end()
        path: list[tuple[str, tuple[str, ...] | None]] = [(_built_in(words), None)]
    else:
        path = []
        while True:
            if text.startswith("(anonymous namespace)", at):
                at += len("(anonymous namespace)")
            else:
                word = _WORD.match(text, at)
                if word is None:
                    return None
                at = word.end()
                arguments = None
                if text.startswith("<", at) or text.startswith("::<", at):
                    try:
                        close = closing(text, text.index("<", at))
                        arguments = split(text[text.index("<", at) + 1 : close - 1])
                    except Unreadable:
                        return None
                    at = close
                if not (path and path[-1][0] == "std" and word[0] in _INLINE_NAMESPACES):
                    path.append((word[0], arguments))
            if not text.startswith("::", at):
                break
            at += 2
        if not path:
            return None
        if path[-1][0] in _TYPEDEFS and len(path) <= 2 and path[0][0] in (path[-1][0], "std"):
            path = [(_TYPEDEFS[path[-1][0]], None)]
    tail = tight(text[at:])
    if tail.startswith("const"):
        constant, tail = True, tail.removeprefix("const")
    return _Type(head[0] if head else "", tuple(path), ("const" if constant else "") + tail)


def _built_in(words: list[str]) -> str:
    kinds = [word for word in words if word not in ("unsigned", "signed", "int")]
    sign = "unsigned " if "unsigned" in words else "signed " if words == ["signed", "char"] else ""
    return sign + (" ".join(kinds) or "int")


def fit_type(asked: str, name: str, depth: int = 0) -> Fit | None:
    """How well the type ``asked`` fits the type ``name``; None when it does not."""
    if asked == name or tight(asked) == tight(name):
        return Fit.EXACT
    if _PLACEHOLDER.fullmatch(asked):
        return Fit.PLACEHOLDER
    wanted, there = _type(asked), _type(name)
    if wanted is None or there is None or depth > _DEEPEST or wanted.head != there.head:
        return None
    worst = Fit.EXACT
    if wanted.tail != there.tail:
        if {wanted.tail, there.tail} != {"const", ""}:
            return None
        worst = Fit.LOOSE
    found = _fit_path(wanted.path, there.path, depth)
    if found is None:
        found = _fit_path(_expanded(wanted.path), _expanded(there.path), depth)
        if found is None:
            return None
        found = max(found, Fit.LOOSE)
    return max(worst, found)


_Path = tuple[tuple[str, tuple[str, ...] | None], ...]


def _expanded(path: _Path) -> _Path:
    name, arguments = path[-1]
    if arguments is None and name in ALIASES and len(path) <= 2 and path[0][0] in (name, "std"):
        return (("std", None), ALIASES[name])
    return path


def _fit_path(asked: _Path, name: _Path, depth: int) -> Fit | None:
    if len(asked) > len(name):
        return None
    worst = Fit.EXACT if len(asked) == len(name) else Fit.LOOSE
    for (wanted, some), (there, all_of_them) in zip(reversed(asked), reversed(name), strict=False):
        if wanted != there:
            return None
        found = arguments_fit(some, all_of_them, depth=depth)
        if found is None:
            return None
        worst = max(worst, Fit.LOOSE if some is None and all_of_them is not None else found)
    return worst


def arguments_fit(
    asked: tuple[str, ...] | None, name: tuple[str, ...] | None, *, whole: bool = False, depth: int = 0
) -> Fit | None:
    """How well a list of types fits another; None when it does not.

    Args:
        asked: What was typed; None when the list was left out, which fits any.
        name: What the name has.
        whole: Whether the end of the list must not be left out (parameters), as template arguments may be.
        depth: How deep in other types.
    """
    if asked is None:
        return Fit.EXACT
    if name is None or len(asked) > len(name) or (whole and len(asked) != len(name)):
        return None
    worst = Fit.EXACT
    for wanted, there in zip(asked, name, strict=False):
        found = fit_type(wanted, there, depth + 1)
        if found is None:
            return None
        worst = max(worst, found)
    left_out = name[len(asked) :]
    if left_out:
        worst = max(worst, Fit.LOOSE if all(_STANDARD_DEFAULTS.match(each) for each in left_out) else Fit.PLACEHOLDER)
    return worst
