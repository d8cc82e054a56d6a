"""Which function of an image a name means.

Exact first, then the end of a name behind a separator (``.``, ``::``, ``/``). ``FILE:NAME`` tells static namesakes apart.
GCC's clones (``NAME.constprop.0``, ``NAME.isra.0``) are NAME; what it split off (``NAME.part.0``, ``NAME.cold``) never is,
since only some of the calls go there. In Go, ``main.F[go.shape.int]`` answers to ``main.F[int]``, and all instances of
F to ``main.F``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from rapidfuzz import fuzz, process

from coral.elf import absent, demangle
from coral.elf.symbols import Function, SymbolTable
from coral.model.errors import AmbiguousName, FailedPrecondition, NotFound
from coral.model.text import printable

_CLONE = re.compile(r"(\.(constprop|isra|lto_priv)\.\d+)+$")
_SPLIT = re.compile(r"\.(cold|part)(\.|$)")
_MANGLED = re.compile(r"_Z|_R[A-Z]|\?")
_SEPARATORS = (".", "::", "/")
_GO_FILE = "go.go"  # STT_FILE of all that Go's linker writes; copies of a closure that was inlined share their name there
_LIMIT = 10
_ALIKE = 65  # percent of a whole name
_HOLDING = 85  # percent of its most similar stretch


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """One function by its name in the source.

    Attributes:
        name: The name of it and its clones.
        functions: Where it begins: itself and its clones, one symbol for each address, by address.
    """

    name: str
    functions: tuple[Function, ...]

    @property
    def symbol(self) -> str:
        """Its name as the file has it."""
        return self.functions[0].name

    @property
    def demangled(self) -> str:
        """Its name as the source spells it, with parameters where the symbol has them."""
        return demangle.demangle(base_name(self.symbol)) or self.name

    @property
    def language(self) -> str:
        """``cpp``, ``rust``, or ``c`` when the symbol is not mangled (then it may be Go as well)."""
        return demangle.language(self.symbol)


def all_functions(symbols: SymbolTable) -> list[Match]:
    """Every function that can be named, by name, as ``find`` groups them."""
    index: dict[str, list[Function]] = defaultdict(list)
    for name, functions in symbols.by_name.items():
        if not _SPLIT.search(name):
            index[base_name(name)].extend(functions)
    return [match for name in sorted(index) for match in _group(name, index[name])]


def base_name(name: str) -> str:
    """The name in the source behind the name of a clone."""
    return _CLONE.sub("", name)


def find(symbols: SymbolTable, text: str, path: str) -> Match:
    """The function that ``text`` means.

    Args:
        symbols: Of the image.
        text: ``NAME`` or ``FILE:NAME``.
        path: Of the image, for messages.

    Raises:
        NotFound: There is none; the hint gives the nearest names.
        AmbiguousName: There are several; the hint gives up to ten of them.
        FailedPrecondition: It is there in a form that cannot be probed.
    """
    if "@" in text[1:] and text not in symbols.by_name:
        plain, _, version = text.partition("@")
        # NAME@@VERSION, or NAME@VERSION as imports are shown: the default version has no suffix.
        text = f"{plain}@{version}" if f"{plain}@{version}" in symbols.by_name else plain
    if not symbols:
        raise absent.nameless(symbols, path)
    index = _index(symbols)
    for name, source in _readings(text):
        groups = _exact(index, name) or _instances(index, name) or _suffix(index, name)
        if source:
            groups = [group for group in groups if any(_in_file(function, source) for function in group.functions)]
            groups = [
                Match(name=group.name, functions=tuple(f for f in group.functions if _in_file(f, source))) for group in groups
            ]
        if len(groups) > 1:
            labels = sorted({_label(group) for group in groups})
            raise AmbiguousName(
                f"{printable(text)!r} means {len(groups)} functions of {path}.",
                hint=f"Choose one: {', '.join(labels[:_LIMIT])}{', ...' if len(labels) > _LIMIT else ''}.",
                details={"candidates": "\n".join(labels[:_LIMIT])},
            )
        if groups:
            return groups[0]
    raise _not_found(symbols, text, path)


def nearest(symbols: SymbolTable, text: str, limit: int = _LIMIT) -> list[str]:
    """The names most like ``text``, best first."""
    choices = list(dict.fromkeys(base_name(name) for name in symbols.by_name if not _SPLIT.search(name)))
    alike = process.extract(text, choices, scorer=fuzz.ratio, limit=limit, score_cutoff=_ALIKE)
    holding = process.extract(text, choices, scorer=fuzz.partial_ratio, limit=limit, score_cutoff=_HOLDING)
    return list(dict.fromkeys(name for name, _, _ in (*alike, *holding)))[:limit]


def _readings(text: str) -> Iterable[tuple[str, str]]:
    """The ways to read ``text``: as a name (Go has names with a colon), then as FILE:NAME."""
    yield text, ""
    source, colon, name = text.partition(":")
    if colon and source and name and not name.startswith(":"):
        yield name, source


_Index = dict[str, list[Function]]
_indexes: dict[int, tuple[SymbolTable, _Index]] = {}


def _index(symbols: SymbolTable) -> _Index:
    """The functions by name in the source."""
    known = _indexes.get(id(symbols))
    if known is not None and known[0] is symbols:
        return known[1]
    index: _Index = defaultdict(list)
    for name, functions in symbols.by_name.items():
        if not _SPLIT.search(name):
            index[base_name(name)].extend(functions)
            if source := demangle.demangle(base_name(name)):
                index[_path(source)].extend(functions)
    _indexes.clear()
    _indexes[id(symbols)] = (symbols, index)
    return index


def _path(source: str) -> str:
    """``void shop::f<int>(int)`` as ``shop::f<int>``."""
    path, depth = "", 0
    for at, character in enumerate(source):
        depth += character in "<{"
        depth -= character in ">}"
        if not depth and character == " " and not path.endswith("operator"):
            path = ""
        elif not depth and character == "(" and path and not path.endswith(("operator", ":")):
            return path if not path.endswith("::") else path + source[at:]
        else:
            path += character
    return path


def _exact(index: _Index, name: str) -> list[Match]:
    if "[" in name and "go.shape." not in name:
        # The instance that code calls is the one by shape; one of the same name without it only passes a dictionary on.
        shaped = [each for each in index if "go.shape." in each and each.replace("go.shape.", "") == name]
        if shaped:
            return [match for each in shaped for match in _group(each, index[each])]
    return _group(name, index[name]) if name in index else []


def _instances(index: _Index, name: str) -> list[Match]:
    """All instances of a Go generic that was named without its arguments: one function."""
    if "[" in name:
        return []
    found = [each for each in index if "[" in each and _without_arguments(each) == name]
    found = [each for each in found if "go.shape." in each] or found
    functions = [function for each in found for function in index[each]]
    return [Match(name=name, functions=_by_address(functions))] if functions else []


def _suffix(index: _Index, name: str) -> list[Match]:
    ends = tuple(separator + name for separator in _SEPARATORS)
    names = [each for each in index if each.endswith(ends) and not _MANGLED.match(each)]
    if names:
        return [match for each in names for match in _group(each, index[each])]
    found: dict[str, list[Match]] = {}
    for each in index:
        if "[" not in each:
            continue
        plain = each.replace("go.shape.", "") if "[" in name else _without_arguments(each)
        if plain.endswith(ends) and plain not in found:
            found[plain] = _exact(index, plain) or _instances(index, plain)
    return [match for matches in found.values() for match in matches]


def _without_arguments(name: str) -> str:
    """``main.(*List[go.shape.int]).Push`` as ``main.(*List).Push``."""
    result, depth = [], 0
    for character in name:
        depth += character == "["
        if not depth:
            result.append(character)
        depth -= character == "]"
    return "".join(result)


def _group(name: str, functions: list[Function]) -> list[Match]:
    """Splits what shares a name into functions: originals at different addresses are namesakes, clones belong to one."""
    originals = {function.vaddr: function for function in functions if function.name == name}
    files = {function.vaddr: function.file for function in functions if function.local}
    if files and set(files.values()) == {_GO_FILE} and len(files) == len(originals):
        return [Match(name=name, functions=_by_address(functions))]
    if len(originals) <= 1 and (originals or len(set(files.values())) <= 1):
        return [Match(name=name, functions=_by_address(functions))]
    groups: dict[object, list[Function]] = defaultdict(list)
    outer = next((vaddr for vaddr, function in originals.items() if not function.local), None)
    for function in functions:
        own = next((v for v, original in originals.items() if original.local and original.file == function.file), None)
        key: object = function.vaddr if function.vaddr in originals else own if own is not None else outer
        groups[key if key is not None else function.file].append(function)
    return [Match(name=name, functions=_by_address(group)) for group in groups.values()]


def _by_address(functions: list[Function]) -> tuple[Function, ...]:
    """One function for each address, the largest and then the first global one of its aliases."""
    best: dict[int, Function] = {}
    for function in sorted(functions, key=lambda each: (-each.size_bytes, each.local)):
        best.setdefault(function.vaddr, function)
    return tuple(best[vaddr] for vaddr in sorted(best))


def _in_file(function: Function, source: str) -> bool:
    return function.file == source or function.file.endswith("/" + source)


def _label(group: Match) -> str:
    function = group.functions[0]
    label = f"{function.file}:{group.name}" if function.local and function.file else group.name
    return printable(label)


def _not_found(symbols: SymbolTable, text: str, path: str) -> NotFound | FailedPrecondition:
    shown = printable(text)
    split = sorted(name for name in symbols.by_name if _SPLIT.search(name) and (name == text or name.startswith(text + ".")))
    if split:
        return FailedPrecondition(
            f"{shown!r} was inlined into its callers in {path}; only {split[0]} is left of it.",
            hint="Name one of its callers, or build with -fno-partial-inlining.",
        )
    names = [printable(name) for name in nearest(symbols, text)]
    missing = NotFound(
        f"{path} has no function {shown!r}.",
        hint=f"The nearest are: {', '.join(names)}." if names else "",
        details={"nearest": "\n".join(names)} if names else {},
    )
    return absent.explained(symbols, text, path, missing)
