"""Which function of an image a name means.

Exact first, then the end of a name behind a separator (``.``, ``::``, ``/``). ``FILE:NAME`` tells static namesakes apart.
GCC's clones (``NAME.constprop.0``, ``NAME.isra.0``) are NAME; what it split off (``NAME.part.0``, ``NAME.cold``) never is,
since only some of the calls go there. In Go, ``main.F[go.shape.int]`` answers to ``main.F[int]``, and all instances of
F to ``main.F``. C++ and Rust functions answer to their demangled names and to what is left of those when parameters,
template arguments, namespaces or hashes are not typed; ``spelling`` has the rules.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from rapidfuzz import fuzz, process

from coral.elf import absent
from coral.elf.demangle import demangle
from coral.elf.grouping import (
    HASH,
    Index,
    Match,
    Named,
    by_address,
    functions_of,
    group_plain,
    index_of,
    overloads,
    path_of,
    spelled,
    spelled_text,
)
from coral.elf.spelling import Spelling, fit
from coral.elf.suffixes import dissect
from coral.elf.symbols import Function, SymbolTable
from coral.elf.typenames import Fit, as_typed
from coral.model.errors import AmbiguousName, FailedPrecondition, NotFound
from coral.model.text import printable

__all__ = ["Match", "all_functions", "base_name", "find", "nearest"]

_SEPARATORS = (".", "::", "/")
_ABI0 = ".abi0"
_NUMBER = re.compile(r"_\d+(?=[\],])")
_LIMIT = 10
_ALIKE = 65  # percent of a whole name
_HOLDING = 85  # percent of its most similar stretch
_RUST_HASH = re.compile(r"::(h[0-9a-f]{16})$")


def base_name(name: str) -> str:
    """The name in the source behind the name of a clone."""
    return dissect(name).source


def find(symbols: SymbolTable, text: str, path: str, *, advise: bool = True) -> Match:
    """The function that ``text`` means.

    Args:
        symbols: Of the image.
        text: ``NAME`` or ``FILE:NAME``.
        path: Of the image, for messages.
        advise: Whether nearest names are looked for when there is none, which takes a second in a large C++ library.

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
        whole, others = _mangled(index, name, source)
        groups = _exact(symbols, index, name) or whole or _instances(index, name) or [*_suffix(index, name), *others]
        # Go's linker marks what follows the convention of assembly; where nothing else has the name, nobody has to know.
        groups = groups or _exact(symbols, index, name + _ABI0) or _suffix(index, name + _ABI0)
        if source:
            groups = [group for group in groups if any(_in_file(function, source) for function in group.functions)]
            groups = [
                Match(
                    name=group.name,
                    demangled=group.demangled,
                    functions=tuple(function for function in group.functions if _in_file(function, source)),
                )
                for group in groups
            ]
        groups = _apart(groups)
        if len(groups) > 1:
            labels = sorted(_labels(groups))
            raise AmbiguousName(
                f"{printable(text)!r} means {len(groups)} functions of {path}.",
                hint=f"Choose one: {', '.join(labels[:_LIMIT])}{', ...' if len(labels) > _LIMIT else ''}.",
                details={"candidates": "\n".join(labels[:_LIMIT])},
            )
        if groups:
            return groups[0]
    raise _not_found(symbols, text, path, advise=advise)


def _apart(groups: Sequence[Match]) -> list[Match]:
    """Several names of the same places are one function, by the shortest of them."""
    found: dict[tuple[int, ...], Match] = {}
    for group in sorted(groups, key=lambda group: len(group.name)):
        found.setdefault(tuple(function.vaddr for function in group.functions), group)
    return list(found.values())


def all_functions(symbols: SymbolTable) -> list[Match]:
    """Every function that can be named, by name, as ``find`` tells them apart; each instance of a template for itself."""
    index = _index(symbols)
    found = [match for name, functions in index.plain.items() for match in group_plain(name, functions)]
    texts: dict[str, list[str]] = defaultdict(list)
    for symbol in index.mangled:
        texts[index.text(symbol) or symbol].append(symbol)
    paths = {text: path_of(text) for text in texts}
    uses = Counter(paths.values())
    for text, cores in texts.items():
        name = paths[text] if uses[paths[text]] == 1 else text
        if len(cores) == 1 and len(functions := index.mangled[cores[0]]) == 1:
            found.append(Match(name=name, functions=tuple(functions), demangled=text))
            continue
        spelling = spelled_text(text)
        for group in overloads([Named(core, spelling, index.mangled[core]) for core in cores]):
            found += [Match(name=name, functions=by_address(each), demangled=text) for each in functions_of(group)]
    return sorted(found, key=lambda match: match.name)


def nearest(symbols: SymbolTable, text: str, limit: int = _LIMIT) -> list[str]:
    """The names most like ``text``, best first."""
    index = _index(symbols)
    choices = [*index.plain, *dict.fromkeys(path_of(index.text(symbol) or symbol) for symbol in index.mangled)]
    text = spelled_text(as_typed(text)).path
    folded = text.casefold()
    ends = tuple(separator + folded for separator in _SEPARATORS)
    same = [each for each in choices if each.casefold() == folded or each.casefold().endswith(ends)]
    alike = process.extract(text, choices, scorer=fuzz.ratio, limit=limit, score_cutoff=_ALIKE)
    holding = process.extract(text, choices, scorer=fuzz.partial_ratio, limit=limit, score_cutoff=_HOLDING)
    return list(dict.fromkeys((*same, *(name for name, _, _ in (*alike, *holding)))))[:limit]


def _readings(text: str) -> Iterable[tuple[str, str]]:
    """The ways to read ``text``: as a name (Go has names with a colon), then as FILE:NAME."""
    yield text, ""
    source, colon, name = text.partition(":")
    if colon and source and name and not name.startswith(":"):
        yield name, source


_indexes: dict[int, tuple[SymbolTable, Index]] = {}


def _index(symbols: SymbolTable) -> Index:
    """The functions by name in the source."""
    known = _indexes.get(id(symbols))
    if known is not None and known[0] is symbols:
        return known[1]
    index = index_of(symbols)
    _indexes.clear()
    _indexes[id(symbols)] = (symbols, index)
    return index


def _exact(symbols: SymbolTable, index: Index, name: str) -> list[Match]:
    if found := _plain(index, name):
        return found
    if name in symbols.by_name and not dissect(name, symbols.by_name).piece:
        return _of_symbol(symbols, index, name)
    return []


def _plain(index: Index, name: str) -> list[Match]:
    if "[" in name and "go.shape." not in name:
        # The instance that code calls is the one by shape; one of the same name without it only passes a dictionary on.
        shaped = [each for each in index.plain if "go.shape." in each and name in _written(each)]
        if shaped:
            return [match for each in shaped for match in group_plain(each, index.plain[each])]
    return group_plain(name, index.plain[name]) if name in index.plain else []


def _of_symbol(symbols: SymbolTable, index: Index, name: str) -> list[Match]:
    """The function of exactly one symbol, such as one variant of a constructor, or one of several static functions."""
    symbol = dissect(name, symbols.by_name)
    functions = symbols.by_name[name]
    if not symbol.clone and not symbol.renamed:
        clones = (function for function in index.mangled.get(symbol.source, ()) if dissect(function.name).clone)
        functions = [*functions, *(function for function in clones if dissect(function.name).source == symbol.source)]
    spelling = spelled(symbol.source)
    if spelling is None:
        return group_plain(name, functions)
    name = spelling.path
    if len(_overloads(index, spelling)) > 1:
        name += spelling.signature
    groups = functions_of([Named(symbol.source, spelling, functions)])
    return [Match(name=name, functions=by_address(each), demangled=demangle(symbol.source)) for each in groups]


def _overloads(index: Index, spelling: Spelling) -> list[list[Named]]:
    """All functions with a path in common."""
    bare = spelling.bare
    return overloads([each for each in _candidates(index, spelling) if each.spelling.bare == bare])


def _candidates(index: Index, query: Spelling) -> Iterable[Named]:
    """The functions that can have the last name of ``query``: demangling all of 100,000 takes a second."""
    word, operator = query.last_word, query.operator
    for symbol, functions in index.mangled.items():
        if word in symbol and (operator is None or operator.search(symbol)) and (text := index.text(symbol)):
            yield Named(symbol, spelled_text(text), functions)


def _mangled(index: Index, name: str, source: str) -> tuple[list[Match], list[Match]]:
    """The C++ and Rust functions that ``name`` can mean: those that have it as their whole path, and else others."""
    if not index.mangled:
        return [], []
    text = as_typed(name)
    wanted_hash = _RUST_HASH.search(text)
    if wanted_hash:
        text = text[: wanted_hash.start()]
    query = spelled_text(text)
    found: dict[tuple[bool, bool, Fit], list[Named]] = defaultdict(list)
    for each in _candidates(index, query):
        if wanted_hash and wanted_hash[1] not in each.symbol:
            continue
        if source and not any(_in_file(function, source) for function in each.functions):
            continue
        how = fit(query, each.spelling)
        if how is not None:
            whole, fits = how
            found[fits is Fit.BY_TRAIT, not whole, fits].append(each)
    if not found:
        return [], []
    best = min(found)
    paths: dict[str, list[Named]] = defaultdict(list)
    for each in found[best]:
        paths[each.spelling.bare].append(each)
    matches = [match for same_path in paths.values() for match in _called(index, query, same_path)]
    return ([], matches) if best[0] or best[1] else (matches, [])


def _called(index: Index, query: Spelling, same_path: list[Named]) -> Iterable[Match]:
    """The functions that share a path, each with what to call it: with its parameters where it is overloaded."""
    groups = overloads(same_path)
    overloaded = len(groups if query.parameters is None else _overloads(index, same_path[0].spelling)) > 1
    for group in groups:
        spelling = group[0].spelling
        one = len({each.spelling.path for each in group}) == 1
        name = spelling.path if one and (query.generic or not spelling.generic) else spelling.bare
        demangled = demangle(group[0].symbol) if one else spelling.bare
        for functions in functions_of(group):
            called = name + spelling.signature if overloaded else name
            yield Match(name=called, functions=by_address(functions), demangled=demangled)


def _instances(index: Index, name: str) -> list[Match]:
    """All instances of a Go generic that was named without its arguments: one function."""
    if "[" in name:
        return []
    found = [each for each in index.plain if "[" in each and _without_arguments(each) == name]
    found = [each for each in found if "go.shape." in each] or found
    functions = [function for each in found for function in index.plain[each]]
    return [Match(name=name, functions=by_address(functions), demangled=name)] if functions else []


def _suffix(index: Index, name: str) -> list[Match]:
    ends = tuple(separator + name for separator in _SEPARATORS)
    names = [each for each in index.plain if each.endswith(ends)]
    if names:
        return [match for each in names for match in group_plain(each, index.plain[each])]
    found: dict[str, list[Match]] = {}
    for each in index.plain:
        if "[" not in each:
            continue
        for plain in _written(each) if "[" in name else (_without_arguments(each),):
            if plain.endswith(ends) and plain not in found:
                found[plain] = _plain(index, plain) or _instances(index, plain)
    return [match for matches in found.values() for match in matches]


def _written(name: str) -> tuple[str, ...]:
    """How people write ``main.F[go.shape.int]``, in Go 1.18 and 1.19 ``main.F[go.shape.int_0]``: as ``main.F[int]``."""
    plain = name.replace("go.shape.", "")
    numberless = _NUMBER.sub("", plain) if plain != name else plain
    return (plain,) if numberless == plain else (plain, numberless)


def _without_arguments(name: str) -> str:
    """``main.(*List[go.shape.int]).Push`` as ``main.(*List).Push``."""
    result, depth = [], 0
    for character in name:
        depth += character == "["
        if not depth:
            result.append(character)
        depth -= character == "]"
    return "".join(result)


def _in_file(function: Function, source: str) -> bool:
    return function.file == source or function.file.endswith("/" + source)


def _labels(groups: Sequence[Match]) -> list[str]:
    """What to type for each of several functions: its name, with its file or hash, or its symbol, if that is not enough."""
    uses = Counter(group.name for group in groups)
    labels = [_closer(group) if uses[group.name] > 1 else group.name for group in groups]
    uses = Counter(labels)
    return [printable(group.symbol if uses[label] > 1 else label) for group, label in zip(groups, labels, strict=True)]


def _closer(group: Match) -> str:
    function = group.functions[0]
    if group.language == "rust":
        legacy = HASH.search(dissect(function.name).source)
        return f"{group.name}::{legacy[1]}" if legacy else group.symbol
    if dissect(function.name).renamed:
        return group.symbol
    if function.local and function.file:
        return f"{function.file}:{group.name}"
    return group.name if group.language == "c" else group.symbol


def _not_found(symbols: SymbolTable, text: str, path: str, *, advise: bool) -> NotFound | FailedPrecondition:
    shown = printable(text)
    index = _index(symbols)
    query = spelled_text(as_typed(text))
    pieces = [name for name in index.pieces if name == text or name.startswith(text + ".") or _means(query, name)]
    if pieces:
        return FailedPrecondition(
            f"{shown!r} was inlined into its callers in {path}; only {printable(min(pieces))} is left of it.",
            hint="Name one of its callers, or build with -fno-partial-inlining.",
        )
    if not advise:
        return NotFound(f"{path} has no function {shown!r}.")
    others = dict.fromkeys(
        demangle(each.symbol) for each in _candidates(index, query) if fit(query.without_signature, each.spelling)
    )
    names = [printable(name) for name in (*others, *nearest(symbols, text))][:_LIMIT]
    missing = NotFound(
        f"{path} has no function {shown!r}.",
        hint=f"The nearest are: {', '.join(names)}." if names else "",
        details={"nearest": "\n".join(names)} if names else {},
    )
    imported = text if text in symbols.imports else next((name for name in symbols.imports if _means(query, name)), text)
    return absent.explained(symbols, imported, path, missing)


def _means(query: Spelling, symbol: str) -> bool:
    """Whether somebody who typed ``query`` means a C++ or Rust symbol."""
    if not symbol.startswith(("_Z", "_R")) or query.last_word not in symbol:
        return False
    spelling = spelled(dissect(symbol).source)
    return spelling is not None and fit(query, spelling) is not None
