"""C++ and Rust names taken apart, and compared with what somebody typed.

Both sides are read by the same parser: names as LLVM's demangler spells them (``void shop::f<int>(int)``,
``<shop::Foo as shop::Trait>::method``) and names as people type them (``f``, ``Foo::method``, ``greet(const string&)``). All
scans are linear and nesting is bounded, since names come from files that others wrote; what cannot be taken apart is one
opaque word, which only its exact spelling matches.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from coral.elf.typenames import ALIASES, Fit, Unreadable, arguments_fit, closing, fit_type, split, tight

ANONYMOUS = "(anonymous namespace)"

_OPERATOR = re.compile(
    r"operator\s*(\(\)|\[\]|->\*|->|<=>|<<=|>>=|<<|>>|<=|>=|==|!=|&&|\|\||\+\+|--|[-+*/%^&|]=|[-+*/%^&|~!=<>,]"
    r'|""\s*\w+|new\s*\[\]|new\b|delete\s*\[\]|delete\b|co_await\b)'
)
_WORD = re.compile(r"~?[^\s<>(){}\[\]:,'*&]+(?:\[abi:[\w.]+\])*")
_LAST_WORD = re.compile(r"\w+(?=\W*$)")
# Itanium C++ ABI, 5.1.8: Sa, Sb, Ss, Si, So, Sd, and the typedefs whose constructors are those of the template.
_ABBREVIATED = re.compile(r"allocator|basic_\w+|" + "|".join(ALIASES))
_ABI_TAG = re.compile(r"\[abi:[\w.]+\]")
# Itanium C++ ABI, 5.1.3.4 (operator encodings); those that are written alike have a class of letters.
_OPERATORS = "() [] -> ->* , ~ ! = <=> + - * & / % | ^ == != < > <= >= && || << >> ++ -- += -= *= /= %= &= |= ^= <<= >>="
_CODES = (
    "cl ix pt pm cm co nt aS ss p[ls] (?:mi|ng) (?:ml|de) a[nd] dv rm or eo eq ne lt gt le ge aa oo ls rs pp mm pL mI mL dV "
    "rM aN oR eO lS rS"
)
_WORD_OPERATORS = {"new": "nw", "new[]": "na", "delete": "dl", "delete[]": "da", "co_await": "aw"}
_OPERATOR_CODES = {**dict(zip(_OPERATORS.split(), _CODES.split(), strict=True)), **_WORD_OPERATORS}
_QUALIFIERS = re.compile(r"(?: ?(?:const|volatile|noexcept)\b)*(?: ?&&?)?")
_CLOSURE = re.compile(r"\{closure#\d+\}")
_SHIM = re.compile(r"\{shim:vtable#\d+\}|\{\{vtable\.shim\}\}")
_LAMBDA = re.compile(r"\{lambda(?:\((?P<types>.*)\))?(?:#(?P<number>\d+))?\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One component of a path.

    Attributes:
        name: Without template arguments: ``push``, ``operator<<``, ``{lambda(int)#1}``, ``(anonymous namespace)``.
        arguments: Its template or generic arguments; None when it is written without.
        parameters: Of an enclosing function; None when they are not written.
        trait: For the type of a Rust trait's implementation, the trait.
    """

    name: str
    arguments: tuple[str, ...] | None = None
    parameters: tuple[str, ...] | None = None
    trait: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """A name taken apart.

    Attributes:
        parts: The path, outermost first.
        parameters: The types of the function's parameters; None when they are not written.
        qualifiers: ``const``, ``&&`` and so on behind the parameters.
    """

    parts: tuple[Part, ...]
    parameters: tuple[str, ...] | None = None
    qualifiers: str = ""

    @property
    def path(self) -> str:
        """The path with its arguments, without parameters."""
        return _joined(self.parts, arguments=True)

    @property
    def bare(self) -> str:
        """The path without any arguments: the same for all instances of a template."""
        return _joined(self.parts, arguments=False)

    @property
    def generic(self) -> bool:
        """Whether the path has arguments somewhere."""
        return any(part.arguments is not None for part in self.parts)

    @property
    def last_word(self) -> str:
        """What every symbol has that this names: its last name, if that is not one of those that are abbreviated."""
        name = self.parts[-1].name
        word = _LAST_WORD.search(name.partition(".")[0])
        if word is None or not word[0].isascii() or name.startswith(("operator", "{")) or _ABBREVIATED.fullmatch(word[0]):
            return ""
        return word[0]

    @property
    def operator(self) -> re.Pattern[str] | None:
        """What every symbol has that this names, when it is an operator."""
        name = self.parts[-1].name
        if not name.startswith("operator"):
            return None
        code = _OPERATOR_CODES.get(name.removeprefix("operator").strip(), "cv" if name.startswith("operator ") else "")
        return re.compile(rf"{code}[EIB]|^_ZL?{code}") if code != "cv" else re.compile(code)

    @property
    def is_structor(self) -> bool:
        """Whether it is a constructor or a destructor, which have several symbols with one spelling."""
        name = self.parts[-1].name
        if name.startswith("~"):
            return True
        around = self.parts[-2].name if len(self.parts) > 1 else ""
        return name in (around, ALIASES.get(around, (around,))[0])

    @property
    def without_signature(self) -> Spelling:
        """The same with no parameters written."""
        return replace(self, parameters=None, qualifiers="")

    def with_suffix(self, suffix: str) -> Spelling:
        """The same with something behind its last name."""
        last = self.parts[-1]
        return replace(self, parts=(*self.parts[:-1], replace(last, name=last.name + suffix)))

    @property
    def signature(self) -> str:
        """The parameters and qualifiers; empty when there are none written."""
        return "" if self.parameters is None else f"({', '.join(self.parameters)}){self.qualifiers and ' ' + self.qualifiers}"


def _joined(parts: Iterable[Part], *, arguments: bool) -> str:
    path = ""
    for part in parts:
        name = f"{part.name}<{', '.join(part.arguments)}>" if arguments and part.arguments is not None else part.name
        path = f"{path}::{name}" if path else name
        if part.trait:
            path = f"<{path} as {part.trait}>"
    return path


@functools.lru_cache(maxsize=1 << 12)
def parse(text: str) -> Spelling:
    """``text`` taken apart."""
    try:
        return _parse(text, 0)
    except Unreadable:
        return Spelling(parts=(Part(name=text),))


def _parse(text: str, depth: int) -> Spelling:
    if depth > 8:
        raise Unreadable
    parts: list[Part] = []
    at, end = 0, len(text)
    while at < end:
        if text[at] == "<":
            close = closing(text, at)
            inner = text[at + 1 : close - 1]
            if parts and not inner.startswith("impl "):
                parts[-1] = replace(parts[-1], arguments=split(inner))  # the turbofish of Rust's v0
            else:
                parts = _implementation(inner, depth)
            at = close
        elif text.startswith(("(*", "(&"), at) and not parts:
            return _parse(text[at + 1 : closing(text, at) - 1].lstrip("*&"), depth + 1)  # returns a pointer to a function
        else:
            part, at = _part(text, at)
            parts.append(part)
        if at < end and text[at] == "<":
            close = closing(text, at)
            parts[-1] = replace(parts[-1], arguments=split(text[at + 1 : close - 1]))
            at = close
        if at < end and text[at] == "(":
            close = closing(text, at)
            parameters = split(text[at + 1 : close - 1])
            qualifiers = _QUALIFIERS.match(text, close)
            at = qualifiers.end() if qualifiers else close
            if at == end or text.startswith(" requires ", at):
                found = tight(text[close:at])
                return Spelling(
                    parts=tuple(parts), parameters=() if parameters == ("void",) else parameters, qualifiers=found
                )
            parts[-1] = replace(parts[-1], parameters=parameters)
        while at < end and text[at] in "*&":
            at += 1
        if at < end and text[at] == " ":
            parts, at = [], at + 1  # that was the type it returns
        elif text.startswith("::", at):
            at += 2
        elif at < end and text[at] != "{":
            raise Unreadable
    if not parts:
        raise Unreadable
    return Spelling(parts=tuple(parts))


def _part(text: str, at: int) -> tuple[Part, int]:
    """The component at ``at`` without its arguments, and where it ends."""
    if text.startswith(ANONYMOUS, at):
        return Part(name=ANONYMOUS), at + len(ANONYMOUS)
    if text[at] == "{":
        close = closing(text, at)
        return Part(name=text[at:close]), close
    if text.startswith("operator", at) and not re.match(r"operator[\w$]", text[at : at + 9]):
        return _operator(text, at)
    word = _WORD.match(text, at)
    if word is None:
        raise Unreadable
    return Part(name=_ABI_TAG.sub("", word[0])), word.end()


def _operator(text: str, at: int) -> tuple[Part, int]:
    found = _OPERATOR.match(text, at)
    if found:
        symbol, end = found[1], found.end()
        if symbol == "<<" and end < len(text) and text[end] not in "(< [":
            symbol, end = "<", end - 1  # operator< and its template arguments
        if end < len(text) and text[end] == " " and text.startswith(" <", end):
            end += 1
        symbol = re.sub(r"\s+", "", symbol)
        return Part(name=f"operator {symbol}" if symbol[0].isalpha() else f"operator{symbol}"), end
    # A conversion takes nothing: the type goes on to its empty parameter list.
    end = text.find("()", at)
    while end > 0 and text.startswith("(*", end - 2):
        end = text.find("()", end + 1)
    end = len(text) if end < 0 else end
    return Part(name=f"operator {tight(text[at + len('operator') : end])}"), end


def _implementation(inner: str, depth: int) -> list[Part]:
    """The type in ``<Type>``, ``<Type as Trait>``, ``<impl Type>`` or ``<impl Trait for Type>``."""
    trait = ""
    if inner.startswith("impl "):
        inner = inner.removeprefix("impl ")
        first, found, second = _divide(inner, " for ")
        if found:
            trait, inner = first, second
    else:
        first, found, second = _divide(inner, " as ")
        if found:
            inner, trait = first, second
    try:
        spelling = _parse(inner, depth + 1)
        if spelling.parameters is not None or spelling.path != inner.replace("::<", "<"):
            raise Unreadable
        parts = list(spelling.parts)
    except Unreadable:
        if not inner.strip():
            raise
        parts = [Part(name=inner.strip())]
    if trait:
        parts[-1] = replace(parts[-1], trait=trait)
    return parts


def _divide(text: str, word: str) -> tuple[str, bool, str]:
    """``text`` in two at ``word`` outside of all brackets."""
    at = 0
    while at < len(text):
        if text[at] in "<([{":
            at = closing(text, at)
        elif text.startswith(word, at):
            return text[:at], True, text[at + len(word) :]
        else:
            at += 2 if text.startswith("->", at) else 1
    return text, False, ""


def fit(query: Spelling, name: Spelling) -> tuple[bool, Fit] | None:
    """How ``query`` names ``name``: whether by its whole path, and how well; None when it does not."""
    try:
        signature = _fit_signature(query, name)
        if signature is None:
            return None
        if query.parameters is not None and query.parts[-1].arguments is None and name.parts[-1].arguments is not None:
            signature = max(signature, Fit.LOOSE)  # a function that is no template comes before the instances of one
        best: tuple[bool, Fit] | None = None
        for parts, at_best in _readings(name.parts, anonymous=any(part.name == ANONYMOUS for part in query.parts)):
            found = _fit_parts(query.parts, parts)
            if found is not None:
                candidate = (len(parts) == len(query.parts), max(found, signature, at_best))
                best = candidate if best is None else min(best, candidate, key=lambda each: (each[1], not each[0]))
    except Unreadable:
        return None
    return best


def _readings(parts: tuple[Part, ...], *, anonymous: bool) -> Iterable[tuple[tuple[Part, ...], Fit]]:
    """The paths by which a name can be called."""
    if not anonymous:
        parts = tuple(part for part in parts if part.name != ANONYMOUS)
    yield parts, Fit.EXACT
    for index, part in enumerate(parts):
        if part.trait:
            try:
                trait = _parse(part.trait, 1).parts
            except Unreadable:
                continue
            yield (*trait, *parts[index + 1 :]), Fit.BY_TRAIT


def _fit_parts(query: tuple[Part, ...], name: tuple[Part, ...]) -> Fit | None:
    if len(query) > len(name):
        return None
    worst = Fit.EXACT
    for asked, part in zip(reversed(query), reversed(name), strict=False):
        found = _fit_part(asked, part)
        if found is None:
            return None
        worst = max(worst, found)
    return worst


def _fit_part(asked: Part, part: Part) -> Fit | None:
    same: Fit | None = Fit.EXACT
    if asked.name != part.name:
        if part.arguments is None and part.name in ALIASES and ALIASES[part.name][0] == asked.name:
            part = replace(part, name=asked.name, arguments=ALIASES[part.name][1])
        else:
            same = _fit_name(asked.name, part.name)
    trait: Fit | None = Fit.EXACT
    if part.trait or asked.trait:
        trait = fit_type(asked.trait, part.trait) if asked.trait else Fit.LOOSE
    worst = Fit.EXACT
    for found in (same, arguments_fit(asked.arguments, part.arguments), _fit_parameters(asked, part), trait):
        if found is None:
            return None
        worst = max(worst, found)
    return worst


def _fit_name(asked: str, name: str) -> Fit | None:
    """Names that are spelled in more than one way: conversions, closures, lambdas, shims, constructors of typedefs."""
    if asked.startswith("operator ") and name.startswith("operator "):
        return fit_type(asked.removeprefix("operator "), name.removeprefix("operator "))
    if asked == "{{closure}}" and _CLOSURE.fullmatch(name):
        return Fit.EXACT
    if _SHIM.fullmatch(asked) and _SHIM.fullmatch(name):
        return Fit.EXACT
    if asked.startswith("~") == name.startswith("~") and ALIASES.get(asked.lstrip("~"), (None,))[0] == name.lstrip("~"):
        return Fit.LOOSE
    same = None if name.startswith("~") or name.isidentifier() else fit_type(asked, name)
    if same is Fit.EXACT or same is Fit.LOOSE:
        return same  # what a trait is implemented for, when that is no path: [u8], &str
    wanted, there = _LAMBDA.fullmatch(asked), _LAMBDA.fullmatch(name)
    if wanted and there and wanted["number"] in (None, there["number"]):
        if wanted["types"] is None:
            return Fit.EXACT
        return arguments_fit(split(wanted["types"]), split(there["types"] or ""), whole=True)
    return None


def _fit_parameters(asked: Part, part: Part) -> Fit | None:
    """Of an enclosing function: ``main`` has none in symbols, and ``main()`` is as right."""
    if part.parameters is None:
        return None if asked.parameters else Fit.EXACT
    return arguments_fit(asked.parameters, part.parameters, whole=True)


def _fit_signature(query: Spelling, name: Spelling) -> Fit | None:
    if query.parameters is None:
        return Fit.EXACT
    if name.parameters is None:
        return Fit.LOOSE if not query.parameters else None
    found = arguments_fit(query.parameters, name.parameters, whole=True)
    if found is None or query.qualifiers == name.qualifiers:
        return found
    return None if query.qualifiers else max(found, Fit.LOOSE)
