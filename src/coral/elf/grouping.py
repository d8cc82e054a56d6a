"""Which symbols of an image are one function.

One function has several symbols where compilers made clones, where a generic has instances, where a C++ constructor or
destructor has variants (Itanium C++ ABI, 5.1.4.3), and where a virtual function has thunks. It is the other way round where
static functions of several files share a name, and where C++ functions are overloaded.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from coral.elf.demangle import demangle, language
from coral.elf.spelling import Spelling, parse
from coral.elf.suffixes import dissect
from coral.elf.symbols import Function, SymbolTable
from coral.elf.typenames import tight
from coral.model.addresses import Vaddr

_GO_FILE = "go.go"  # STT_FILE of all that Go's linker writes; copies of a closure that was inlined share their name there
_THUNK = re.compile(r"_ZT(?:h[n]?\d+_|v[n]?\d+_[n]?\d+_|c(?:h[n]?\d+_|v[n]?\d+_[n]?\d+_){2})")
_UNIFIED = re.compile(r"[CD]4E")
HASH = re.compile(r"17(h[0-9a-f]{16})E$")
_TRAILING_PART = re.compile(r"\.[A-Za-z_][\w.]*$")
_MOST_ABSTRACTIONS = 64
_FRAME = re.compile(r"\(.*[.:]Frame\*\)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """One function by its name in the source.

    Attributes:
        name: What to call it: its name in the source, with as much of it as tells it from others in the image.
        functions: Where it begins: itself, its clones, instances, variants and thunks, one symbol for each address, by
            address. Not all of them are probed where one passes its calls on to another (see ``variants``).
        demangled: Its name with all that is known: parameters in C++.
    """

    name: str
    functions: tuple[Function, ...]
    demangled: str = ""

    @property
    def symbol(self) -> str:
        """Its name as the file has it."""
        return self.functions[0].name

    @property
    def language(self) -> str:
        """``cpp``, ``rust``, or ``c`` when the symbol is not mangled (then it may be Go as well)."""
        return language(self.symbol)


@dataclass(frozen=True, slots=True)
class Index:
    """The functions of an image by their names.

    Attributes:
        plain: By the name in the source, where symbols are that.
        mangled: By the symbol without suffixes (that of its target, for a thunk), where it is a mangled name.
        pieces: The symbols of pieces of functions.
        texts: What was demangled of ``mangled``.
    """

    plain: dict[str, list[Function]] = field(default_factory=dict)
    mangled: dict[str, list[Function]] = field(default_factory=dict)
    pieces: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)

    def text(self, symbol: str) -> str:
        """``demangle(symbol)``, kept: lists and searches want the same ones again."""
        known = self.texts.get(symbol)
        if known is None:
            known = self.texts[symbol] = demangle(symbol)
        return known


def index_of(symbols: SymbolTable) -> Index:
    """The functions by their names."""
    index = Index()
    for name, functions in symbols.by_name.items():
        if "." in name or "@" in name:
            symbol = dissect(name, symbols.by_name)
            if symbol.piece:
                index.pieces.append(name)
                continue
            # NAME is the default version of a symbol, where it has one; an old one is asked for as NAME@VERSION.
            own = "@" in name and symbol.source in symbols.by_name and not symbol.source.startswith("_Z")
            source = name if own else symbol.source
        else:
            source = name
        mangled = source.startswith(("_Z", "_R"))
        if mangled:
            source = without_thunk(source)
        table = index.mangled if mangled else index.plain
        known = table.get(source)
        if known is None:
            table[source] = functions
        else:
            table[source] = known + functions
    return index


def without_thunk(symbol: str) -> str:
    """The symbol of the function that a thunk is for; any other one as it is."""
    return _THUNK.sub("_Z", symbol) if symbol.startswith("_ZT") else symbol


def spelled(symbol: str) -> Spelling | None:
    """A mangled symbol taken apart; None when it is none.

    The parts that a coroutine is split into keep their suffix: ``work.resume`` (Clang), ``work.actor`` (GCC).
    """
    text = demangle(symbol)
    if not text:
        return None
    return spelled_text(text)


def spelled_text(text: str) -> Spelling:
    """What ``demangle`` gave, or what somebody typed, taken apart."""
    part = _TRAILING_PART.search(text) if text.rfind(".") > text.rfind(")") >= 0 else None
    if part is None:
        return parse(text)
    text = text[: part.start()]
    return parse(_FRAME.sub("", text)).with_suffix(part[0])


def path_of(text: str) -> str:
    """The path of what ``demangle`` gave, without parameters and the type that is returned; quicker than to take it apart."""
    end = len(text)
    if text[-1:] == ")":
        end -= 1
    elif text[-7:] == ") const":
        end -= 7
    else:
        return spelled_text(text).path if "(" in text or " " in text else text
    depth = 1
    while depth:
        opens, closes = text.rfind("(", 0, end), text.rfind(")", 0, end)
        if opens < 0:
            return spelled_text(text).path
        depth += 1 if closes > opens else -1
        end = max(opens, closes)
    path = text[:end]
    if " " not in path:
        return path
    if "<" not in path and "operator" not in path and "{" not in path:
        return path  # an anonymous namespace
    return spelled_text(text).path


def by_address(functions: Iterable[Function]) -> tuple[Function, ...]:
    """One function for each address, the largest and then the first global one of its aliases."""
    best: dict[int, Function] = {}
    for function in sorted(functions, key=lambda each: (-each.size_bytes, each.local)):
        best.setdefault(function.vaddr, function)
    return tuple(best[vaddr] for vaddr in sorted(best))


def is_copy(symbol: str) -> bool:
    """Whether a symbol exists beside that of its function: a clone, a thunk, or GCC's unified constructor or destructor."""
    return dissect(symbol).clone or bool(_THUNK.match(symbol) or _UNIFIED.search(symbol))


def namesakes(functions: Sequence[Function]) -> list[list[Function]]:
    """Splits what shares a name into functions: originals at different addresses are namesakes, clones belong to one."""
    if len(functions) == 1:
        return [list(functions)]
    symbols = [dissect(function.name) for function in functions]
    originals = {
        function.vaddr: (function, symbol.renamed)
        for function, symbol in zip(functions, symbols, strict=True)
        if not is_copy(function.name)
    }
    files = {function.vaddr: function.file for function in functions if function.local}
    if files and set(files.values()) == {_GO_FILE} and len(files) == len(originals):
        return [list(functions)]
    renames = {symbol.renamed for symbol in symbols}
    if len(originals) <= 1 and len(renames) <= 1 and (originals or len(set(files.values())) <= 1):
        return [list(functions)]
    groups: dict[object, list[Function]] = defaultdict(list)
    outer = next((vaddr for vaddr, (function, _) in originals.items() if not function.local), None)
    for function, symbol in zip(functions, symbols, strict=True):
        groups[_owner(function, symbol.renamed, originals, outer)].append(function)
    return list(groups.values())


def _owner(function: Function, renamed: str, originals: Mapping[Vaddr, tuple[Function, str]], outer: int | None) -> object:
    """What identifies the function that a symbol belongs to."""
    if function.vaddr in originals:
        return function.vaddr
    if renamed:
        return next((vaddr for vaddr, (_, other) in originals.items() if other == renamed), renamed)
    own = [vaddr for vaddr, (original, _) in originals.items() if original.local and original.file == function.file]
    return own[0] if own else outer if outer is not None else function.file


def group_plain(name: str, functions: Sequence[Function]) -> list[Match]:
    """The functions of a name that is not mangled."""
    return [Match(name=name, functions=by_address(group), demangled=name) for group in namesakes(functions)]


@dataclass(frozen=True, slots=True)
class Named:
    """The symbols of one mangled name.

    Attributes:
        symbol: Without suffixes.
        spelling: Taken apart.
        functions: All that have it.
    """

    symbol: str
    spelling: Spelling
    functions: Sequence[Function]


def overloads(named: Sequence[Named]) -> list[list[Named]]:
    """Splits what has a path in common, but for template arguments, into functions: overloads, each with its instances."""
    if len(named) == 1:
        return [list(named)]
    if all(language(each.symbol) == "rust" for each in named):
        return _by(named, lambda each: HASH.findall(each.symbol) if "{{closure}}" in each.spelling.bare else ())
    groups: list[_Overload] = []
    for each in sorted(named, key=lambda each: (each.spelling.path, each.symbol)):
        one = _Overload.of(each)
        if not any(group.take(one) for group in groups):
            groups.append(one)
    found = [group.members for group in groups]
    if len(groups) > 1 and len({(group.pattern, group.qualifiers) for group in groups}) == 1 and groups[0].is_generic:
        instances = _by(named, lambda each: each.spelling.path)
        if all(len(_texts(instance)) == 1 for instance in instances) and len({_coarse_shape(each) for each in named}) == 1:
            found = [list(named)]
    return [apart for group in found for apart in _twins(group)]


@dataclass(slots=True)
class _Overload:
    """One function of several overloads.

    Attributes:
        pattern: Which parts of the path have template arguments.
        qualifiers: Behind the parameters.
        parameters: For each one, the ways to write it with the template arguments taken out that all instances agree on.
        members: The instances.
        spelled: The signature of each instance.
    """

    pattern: tuple[bool, ...]
    qualifiers: str
    parameters: list[set[str]]
    members: list[Named]
    spelled: dict[str, str]

    @classmethod
    def of(cls, named: Named) -> Self:
        """That of one instance."""
        spelling = named.spelling
        return cls(
            pattern=tuple(part.arguments is not None for part in spelling.parts),
            qualifiers=spelling.qualifiers,
            parameters=[_abstractions(parameter, spelling) for parameter in spelling.parameters or ()],
            members=[named],
            spelled={spelling.path: spelling.signature},
        )

    @property
    def is_generic(self) -> bool:
        """Whether there are template arguments anywhere."""
        return any(self.pattern)

    def take(self, other: Self) -> bool:
        """Takes in another instance if it can be one of the same function."""
        if (other.pattern, other.qualifiers) != (self.pattern, self.qualifiers):
            return False
        if len(other.parameters) != len(self.parameters):
            return False
        if any(self.spelled.get(path, signature) != signature for path, signature in other.spelled.items()):
            return False
        common = [mine & others for mine, others in zip(self.parameters, other.parameters, strict=True)]
        if not all(common):
            return False
        self.parameters = common
        self.members += other.members
        self.spelled |= other.spelled
        return True


def _abstractions(parameter: str, spelling: Spelling) -> set[str]:
    """The ways to write a parameter without template arguments: ``int`` of ``Map<int, int>`` is ``$0``, ``$1`` or int."""
    parameter = tight(parameter)
    arguments = [tight(argument) for part in spelling.parts for argument in part.arguments or ()]
    found = {parameter}
    for argument in sorted(set(arguments), key=len, reverse=True):
        places = [number for number, each in enumerate(arguments) if each == argument][:4]
        pattern = rf"(?<![\w:$])(?<!unsigned ){re.escape(argument)}(?![\w:<])"
        found |= {re.sub(pattern, f"${number}", each) for each in list(found)[:_MOST_ABSTRACTIONS] for number in places}
    return found


def _texts(named: Sequence[Named]) -> set[str]:
    return {each.spelling.path + each.spelling.signature for each in named}


def _twins(group: list[Named]) -> list[list[Named]]:
    """Templates can be overloaded so that instances are spelled alike: those are told apart by their symbols."""
    if len(group) == len(_texts(group)) or group[0].spelling.is_structor:
        return [group]
    return _by(group, lambda each: each.symbol)


def _by(named: Sequence[Named], key: Callable[[Named], object]) -> list[list[Named]]:
    groups: dict[str, list[Named]] = defaultdict(list)
    for each in named:
        groups[repr(key(each))].append(each)
    return list(groups.values())


def _coarse_shape(named: Named) -> str:
    """The signature of an instance of a template with any number of arguments (``f(Args&&...)``), references collapsed."""
    spelling = named.spelling
    shapes = [
        max(_abstractions(parameter, spelling), key=lambda each: each.count("$")) for parameter in spelling.parameters or ()
    ]
    plain = [re.sub(r"\$\d+", "$", re.sub(r"(\$\d+)(?: ?const)?&+", r"\1", shape)) for shape in shapes]
    return ",".join(shape for shape, before in zip(plain, ["", *plain], strict=False) if shape != before)


def functions_of(group: Sequence[Named]) -> list[list[Function]]:
    """The functions of one overload: one, or one for each file where static ones share the name."""
    everything = [function for each in group for function in each.functions]
    if len(everything) == 1 or language(group[0].symbol) == "rust":
        return [everything]
    by_file = [_by_file(instance) for instance in _by(group, lambda each: each.spelling.path)]
    if all(len(files) == 1 for files in by_file):
        return [everything]
    merged: dict[object, list[Function]] = defaultdict(list)
    for files in by_file:
        for file, functions in files.items():
            merged[file] += functions
    return list(merged.values())


def _by_file(instance: Sequence[Named]) -> dict[object, list[Function]]:
    """The functions of one instance, by what tells static ones apart."""
    found: dict[object, list[Function]] = defaultdict(list)
    only_clones = []
    for each in instance:
        for number, functions in enumerate(namesakes(each.functions)):
            original = next((function for function in functions if not is_copy(function.name)), None)
            if original is None:
                only_clones.append(functions)
            else:
                renamed = dissect(original.name).renamed
                key: object = (original.file if original.local else "", renamed)
                found[key if key not in found or len(instance) > 1 else (key, number)] += functions
    for functions in only_clones:
        key = next(iter(found)) if len(found) == 1 else (functions[0].file, "")
        found[key] += functions
    return found
