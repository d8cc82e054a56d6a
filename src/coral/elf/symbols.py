"""The functions that a file names, merged from all tables that name them."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from coral.elf.dynamic import Version
from coral.elf.symtab import SHN_UNDEF, STB_LOCAL, STT_FILE, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE, Symbols
from coral.model.addresses import Vaddr
from coral.model.errors import FailedPrecondition

_NEST = 8
_CROWD = 8
_MOST_FUNCTIONS = 3_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """One function symbol.

    Attributes:
        name: As the file has it, without the version that is the default one; an old version is kept, as ``NAME@VERSION``.
        vaddr: Its first byte.
        size_bytes: As the symbol says, else as .eh_frame does; 0 when neither does.
        local: Whether it is static.
        file: The source file of a static function (its STT_FILE); empty when unknown.
        indirect: Whether it is an IFUNC: the address is a resolver's, not the function's.
    """

    name: str
    vaddr: Vaddr
    size_bytes: int
    local: bool = False
    file: str = ""
    indirect: bool = False

    @property
    def end(self) -> Vaddr:
        """Behind its last byte."""
        return Vaddr(self.vaddr + self.size_bytes)


class Import(NamedTuple):
    """A function that a file calls and does not have.

    Attributes:
        name: Its name.
        library: Which library the file expects it in; empty when any of those that it asks for may have it.
    """

    name: str
    library: str


class Frames(Protocol):
    """Knows the ranges of functions by other means than symbols."""

    def size_at(self, vaddr: int) -> int:
        """The size of the range that begins at ``vaddr``; 0 when none does."""


class SymbolTable:
    """The function symbols of a file, by name and by address.

    Args:
        frames: Tells sizes that symbols do not have.

    Attributes:
        by_name: The functions of each name, in the order of the tables.
        imports: The functions that the file takes from libraries, by name.
        needed: The libraries that it asks for.
        sources: Where the names are from, such as ``.symtab``, for people.
        notes: Why other places were not used, as sentences.
        wanted: Where a debug file would have more names, below a folder of such files; empty when none is missing.
    """

    def __init__(self, frames: Frames | None = None) -> None:
        self.by_name: dict[str, list[Function]] = {}
        self.imports: dict[str, Import] = {}
        self.needed: tuple[str, ...] = ()
        self.sources: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.wanted = ""
        self._frames = frames
        self._by_vaddr: dict[int, list[Function]] = {}
        self._crowded: dict[int, set[str]] = {}
        self._count = 0

    def add_table(self, source: str, symbols: Symbols, versions: Mapping[int, Version] | None = None) -> None:
        """Takes in the functions of a symbol table that are not there yet.

        Args:
            source: Where it is from.
            symbols: The table.
            versions: Of dynamic symbols, the versions of those that have one, by number.

        Raises:
            FailedPrecondition: There are absurdly many.
        """
        self.add_functions(source, _functions(symbols, versions or {}))
        if versions is not None:
            self.imports.update((each.name, each) for each in _imports(symbols, versions))

    def add_functions(self, source: str, functions: Iterable[Function]) -> None:
        """Takes in functions that are not there yet.

        Args:
            source: Where they are from.
            functions: The functions.

        Raises:
            FailedPrecondition: There are absurdly many.
        """
        before, frames = self._count, self._frames
        for function in functions:
            if self._known(function.name, function.vaddr):
                continue
            if not function.size_bytes and frames is not None and (size := frames.size_at(function.vaddr)):
                function = replace(function, size_bytes=size)
            self._by_vaddr.setdefault(function.vaddr, []).append(function)
            self.by_name.setdefault(function.name, []).append(function)
            self._count += 1
            if self._count > _MOST_FUNCTIONS:
                raise FailedPrecondition(
                    f"It names more than {_MOST_FUNCTIONS:,} functions.",
                    hint="No program is known to: look where it is from.",
                )
        if self._count > before:
            self.sources += (source,)
            self.__dict__.pop("_starts", None)

    def _known(self, name: str, vaddr: int) -> bool:
        """Whether a function of this name begins there; takes as long wherever many names are for one place."""
        there = self._by_vaddr.get(vaddr)
        if there is None:
            return False
        if len(there) <= _CROWD:
            return any(function.name == name for function in there)
        names = self._crowded.setdefault(vaddr, set())
        if len(names) < len(there):
            names.update(function.name for function in there[len(names) :])
        return name in names

    @cached_property
    def _starts(self) -> list[int]:
        return sorted(self._by_vaddr)

    def __len__(self) -> int:
        return len(self.by_name)

    def at(self, vaddr: int) -> list[Function]:
        """The functions that begin at ``vaddr``: all names of one function."""
        return self._by_vaddr.get(vaddr, [])

    def name_at(self, vaddr: int) -> str:
        """The best name for the function that begins at ``vaddr``; empty when there is none."""
        names = self.at(vaddr)
        return min(names, key=_rank).name if names else ""

    def covering(self, vaddr: int) -> Function | None:
        """The function whose range holds ``vaddr``."""
        index = bisect.bisect_right(self._starts, vaddr) - 1
        # Ranges nest where assembly has labels of type FUNC inside a function; deeper nests than this were never seen.
        for start in reversed(self._starts[max(0, index - _NEST) : index + 1]):
            for function in self._by_vaddr[start]:
                if vaddr < function.end:
                    return function
        return None

    def next_start(self, vaddr: int) -> Vaddr | None:
        """Where the next function behind ``vaddr`` begins."""
        index = bisect.bisect_right(self._starts, vaddr)
        return Vaddr(self._starts[index]) if index < len(self._starts) else None

    def inside(self, start: int, end: int) -> list[Function]:
        """The functions that begin behind ``start`` and before ``end``."""
        first = bisect.bisect_right(self._starts, start)
        last = bisect.bisect_left(self._starts, end)
        return [function for vaddr in self._starts[first:last] for function in self._by_vaddr[vaddr]]


def _rank(function: Function) -> tuple[bool, bool, int]:
    """The smaller, the better its name is for people: not an old version, not static, short."""
    return "@" in function.name, function.local, len(function.name)


def _functions(symbols: Symbols, versions: Mapping[int, Version]) -> Iterator[Function]:
    """The functions that a table defines, in its order."""
    table, types = symbols.table, symbols.types
    defined = (table["section"] != SHN_UNDEF) & (table["value"] != 0)
    chosen = np.flatnonzero(defined & ((types == STT_FUNC) | (types == STT_GNU_IFUNC)))
    locals_ = (symbols.bindings[chosen] == STB_LOCAL).tolist()
    indirect = (types[chosen] == STT_GNU_IFUNC).tolist()
    # Symbols follow their STT_FILE; global ones come after all of them (System V gABI, chapter 4).
    files = np.flatnonzero(types == STT_FILE)
    sources = ["", *symbols.names(files)]
    source_of = np.searchsorted(files, chosen).tolist()
    rows = zip(
        *(chosen.tolist(), symbols.names(chosen), table["value"][chosen].tolist(), table["size"][chosen].tolist()),
        *(locals_, indirect, source_of),
        strict=True,
    )
    for index, name, vaddr, size, local, chooser, source in rows:
        if not name:
            continue
        if "@" in name:
            # Older binutils write versions into the names of .symtab: two at-signs before the default one.
            plain, _, version = name.partition("@")
            name = plain if version.startswith("@") else name
        if index in versions and versions[index].hidden:
            name = f"{name}@{versions[index].name}"
        yield Function(
            name=name,
            vaddr=Vaddr(vaddr),
            size_bytes=size,
            local=local,
            file=sources[source] if local else "",
            indirect=chooser,
        )


def _imports(symbols: Symbols, versions: Mapping[int, Version]) -> Iterator[Import]:
    """The functions that a table uses without defining them; variables that are not told apart are among them."""
    table, types = symbols.table, symbols.types
    wanted = np.isin(types, (STT_NOTYPE, STT_FUNC, STT_GNU_IFUNC))
    chosen = np.flatnonzero((table["section"] == SHN_UNDEF) & wanted & (table["name"] != 0))
    for index, name in zip(chosen.tolist(), symbols.names(chosen), strict=True):
        plain = name.partition("@")[0]
        if plain:
            yield Import(plain, versions[index].library if index in versions else "")
