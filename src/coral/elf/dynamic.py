"""What a file says to the dynamic linker: the segment PT_DYNAMIC and what it leads to.

This part is loaded, so it is there whatever was stripped, also without section headers. Formats: System V gABI, chapter 5;
symbol versions and the GNU hash table as in the Linux Standard Base and glibc's elf/ (dl-lookup.c, dl-version.c).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from coral.elf.headers import PT_DYNAMIC, Headers
from coral.elf.symtab import SYMBOL, Symbols

_NEEDED, _PLTRELSZ, _HASH, _STRTAB, _SYMTAB, _RELA, _RELASZ, _STRSZ, _SONAME, _JMPREL = 1, 2, 4, 5, 6, 7, 8, 10, 14, 23
_GNU_HASH, _VERSYM, _VERDEF, _VERNEED = 0x6FFFFEF5, 0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFE
_GLOB_DAT, _JUMP_SLOT, _RELATIVE = 6, 7, 8

_RELOCATION = np.dtype([("slot", "<u8"), ("type", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])
_VERDEF_ENTRY = struct.Struct("<HHHHIII")
_VERNEED_ENTRY = struct.Struct("<HHIII")
_VERNAUX_ENTRY = struct.Struct("<IHHII")
_HIDDEN = 0x8000
_MOST_ENTRIES = 4096
_MOST_VERSIONS = 1 << 15
_MOST_SYMBOLS = 1 << 24


class Memory(Protocol):
    """A file as it looks once loaded."""

    def read(self, vaddr: int, size_bytes: int) -> bytes:
        """The bytes at ``vaddr``, as many as the file has of them up to ``size_bytes``."""


class Version(NamedTuple):
    """The version of a symbol.

    Attributes:
        name: Such as ``GLIBC_2.2.5``.
        library: Which library must have it; empty where the file itself defines it.
        hidden: Whether it is an old one, that only programs linked long ago ask for.
    """

    name: str
    library: str
    hidden: bool


class Dynamic:
    """The dynamic segment of a file; all is empty where there is none.

    Args:
        memory: The file.
        headers: Its headers.
    """

    def __init__(self, memory: Memory, headers: Headers) -> None:
        self._memory = memory
        self._headers = headers
        self._tags: dict[int, int] = {}
        self._needed_at: list[int] = []
        segment = headers.program(PT_DYNAMIC)
        content = memory.read(segment.vaddr, min(segment.file_size_bytes, 16 * _MOST_ENTRIES)) if segment else b""
        for tag, value in struct.iter_unpack("<qQ", content[: len(content) // 16 * 16]):
            if not tag:
                break
            if tag == _NEEDED:
                self._needed_at.append(value)
            self._tags.setdefault(tag, value)

    @cached_property
    def needed(self) -> tuple[str, ...]:
        """The libraries that it asks for."""
        return tuple(self._string(offset) for offset in self._needed_at)

    @cached_property
    def soname(self) -> str:
        """What it calls itself, as a library; empty when it does not."""
        return self._string(self._tags[_SONAME]) if _SONAME in self._tags else ""

    @cached_property
    def symbols(self) -> Symbols:
        """The symbols that it exports and imports."""
        if _SYMTAB not in self._tags:
            return Symbols.of(b"", b"")
        count = min(self._symbol_count(), _MOST_SYMBOLS)
        return Symbols.of(self._memory.read(self._tags[_SYMTAB], count * SYMBOL.itemsize), self._strings)

    @cached_property
    def relocations(self) -> npt.NDArray[np.void]:
        """What the dynamic linker writes where, with ``slot``, ``type``, ``symbol`` and ``addend``; without RELR."""
        tables = ((_RELA, _RELASZ), (_JMPREL, _PLTRELSZ))
        content = [self._whole(at, self._tags.get(size, 0), _RELOCATION.itemsize) for at, size in tables]
        return np.frombuffer(b"".join(content), _RELOCATION)

    @cached_property
    def slots(self) -> dict[int, str]:
        """The names of the symbols that the dynamic linker stores addresses of, by the address of the slot."""
        wanted = self.relocations[np.isin(self.relocations["type"], (_GLOB_DAT, _JUMP_SLOT))]
        wanted = wanted[(wanted["symbol"] > 0) & (wanted["symbol"] < len(self.symbols.table))]
        return dict(zip(wanted["slot"].tolist(), self.symbols.names(wanted["symbol"]), strict=True))

    @cached_property
    def relocated(self) -> dict[int, int]:
        """The addresses (before the load bias) that the dynamic linker stores itself, by the address of the slot."""
        wanted = self.relocations[(self.relocations["type"] == _RELATIVE) & (self.relocations["addend"] != 0)]
        return dict(zip(wanted["slot"].tolist(), wanted["addend"].tolist(), strict=True))

    @cached_property
    def versions(self) -> dict[int, Version]:
        """The versions of its symbols, by the number of the symbol; symbols without one are not in there."""
        if _VERSYM not in self._tags:
            return {}
        numbers = np.frombuffer(self._whole(_VERSYM, len(self.symbols.table) * 2, 2), "<u2")
        known = {**self._defined_versions(), **self._needed_versions()}
        return {
            int(index): Version(name, library, bool(numbers[index] & _HIDDEN))
            for index in np.flatnonzero((numbers & ~np.uint16(_HIDDEN)) > 1)
            for name, library in [known.get(int(numbers[index]) & ~_HIDDEN, ("", ""))]
            if name
        }

    def _defined_versions(self) -> dict[int, tuple[str, str]]:
        found: dict[int, tuple[str, str]] = {}
        at = self._tags.get(_VERDEF, 0)
        for _ in range(_MOST_VERSIONS if at else 0):
            entry = self._memory.read(at, _VERDEF_ENTRY.size)
            if len(entry) < _VERDEF_ENTRY.size:
                break
            _, _, number, _, _, aux, following = _VERDEF_ENTRY.unpack(entry)
            name_at = self._memory.read(at + aux, 4)
            found.setdefault(number & ~_HIDDEN, (self._string(int.from_bytes(name_at, "little")), ""))
            if not following:
                break
            at += following
        return found

    def _needed_versions(self) -> dict[int, tuple[str, str]]:
        found: dict[int, tuple[str, str]] = {}
        at = self._tags.get(_VERNEED, 0)
        left = _MOST_VERSIONS if at else 0
        while left > 0:
            entry = self._memory.read(at, _VERNEED_ENTRY.size)
            if len(entry) < _VERNEED_ENTRY.size:
                break
            _, count, file, aux, following = _VERNEED_ENTRY.unpack(entry)
            library = self._string(file)
            aux_at = at + aux
            for _ in range(min(count, left)):
                part = self._memory.read(aux_at, _VERNAUX_ENTRY.size)
                if len(part) < _VERNAUX_ENTRY.size:
                    break
                _, _, number, name, after = _VERNAUX_ENTRY.unpack(part)
                found.setdefault(number & ~_HIDDEN, (self._string(name), library))
                aux_at += after
            left -= count + 1
            if not following:
                break
            at += following
        return found

    @cached_property
    def _strings(self) -> bytes:
        return self._memory.read(self._tags[_STRTAB], self._tags.get(_STRSZ, 0)) if _STRTAB in self._tags else b""

    def _string(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset, offset + 4096) if offset < len(self._strings) else -1
        return self._strings[offset:end].decode("utf-8", "replace") if end > offset else ""

    def _whole(self, tag: int, size_bytes: int, entry_bytes: int) -> bytes:
        """The table that a tag leads to, its whole entries."""
        content = self._memory.read(self._tags[tag], size_bytes) if tag in self._tags else b""
        return content[: len(content) // entry_bytes * entry_bytes]

    def _symbol_count(self) -> int:
        """How many dynamic symbols there are, which nothing says in so many words.

        DT_HASH has as many chains as there are symbols. A GNU hash table leads to the last symbol that is defined, and what
        is not defined comes before those, unless there is none; then relocations and the section header tell of some.
        """
        if _HASH in self._tags:
            head = self._memory.read(self._tags[_HASH], 8)
            if len(head) == 8:
                return int.from_bytes(head[4:], "little")
        section = self._headers.section(".dynsym")
        listed = section.size_bytes // SYMBOL.itemsize if section else 0
        used = int(self.relocations["symbol"].max()) + 1 if len(self.relocations) else 0
        return max(listed, used, self._hashed())

    def _hashed(self) -> int:
        """How many symbols there are up to the last one in the GNU hash table."""
        at = self._tags.get(_GNU_HASH, 0)
        head = self._memory.read(at, 16) if at else b""
        if len(head) < 16:
            return 0
        buckets, first, filter_words, _ = struct.unpack("<IIII", head)
        buckets_at = at + 16 + 8 * filter_words
        starts = np.frombuffer(self._memory.read(buckets_at, 4 * buckets)[: 4 * buckets], "u1")
        starts = starts[: len(starts) // 4 * 4].view("<u4")
        last = int(starts.max()) if len(starts) else 0
        if last < first:
            return int(first)
        # Each bucket's chain is a run of hashes, and the last one of a run is odd.
        chain_at = buckets_at + 4 * buckets + 4 * (last - first)
        for index in self._odd(chain_at):
            return last + index + 1
        return last + 1

    def _odd(self, at: int) -> Iterator[int]:
        """The numbers of the odd 32-bit words from ``at`` on."""
        content = self._memory.read(at, 4 * _MOST_SYMBOLS)
        words = np.frombuffer(content[: len(content) // 4 * 4], "<u4")
        yield from (int(index) for index in np.flatnonzero(words & 1)[:1])
