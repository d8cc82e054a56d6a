"""Where a Go program keeps what its runtime knows of it: the header of its table of functions, and its moduledata.

The sections .gopclntab and .data.rel.ro.gopclntab hold the table; where section headers are gone, its magic is looked for
and what follows is checked. The header is ``pcHeader`` of runtime/symtab.go; ``moduledata``, from the same file, begins with
the address of the header, by which it is found, and with slices of the table's parts, by which that is checked.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from coral.elf.file import ElfFile
from coral.model.addresses import Vaddr

MAGIC_12 = 0xFFFFFFFB
MAGIC_116 = 0xFFFFFFFA
MAGIC_118 = 0xFFFFFFF0
MAGIC_120 = 0xFFFFFFF1
_OLD = {MAGIC_12: "before Go 1.16", MAGIC_116: "with Go 1.16 or 1.17"}

_SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab")
# magic (little endian), two zeros, size of the smallest instruction (1 on x86-64), size of a pointer
_START = re.compile(rb"[\xf0\xf1\xfa\xfb]\xff\xff\xff\0\0\x01\x08")
_WORD_BYTES = 4
_SECOND_WORD = 0x08010000  # of those two; files are searched for it, 60 times as fast as for the whole by a pattern
# nfunc, nfiles, textStart (nothing since Go 1.26), funcnameOffset, cuOffset, filetabOffset, pctabOffset, pclnOffset
_HEADER = struct.Struct("<8x8Q")
_MOST_FUNCTIONS = 1 << 24
_MOST_CANDIDATES = 64

# 64-bit words of moduledata.
_WORD_NAMES = 1
_WORD_FUNCTIONS = 13
_WORD_TEXT = 22
GOFUNC_WORDS = (38, 40, 43)
"""Where ``gofunc`` was in Go 1.18, 1.20 and 1.27: which of them it is shows in what lies there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A table of functions, as its header describes it.

    Attributes:
        vaddr: Where it begins.
        data: It, and perhaps what follows it.
        magic: Which layout it has.
        count: How many functions it has.
        names: Where in it their names begin.
        pc_values: Where in it the tables that map program counters to values begin.
        functions: Where in it its functions begin: first their index.
        text: The address of runtime.text; None when only moduledata has it.
    """

    vaddr: Vaddr
    data: bytes
    magic: int
    count: int
    names: int
    pc_values: int
    functions: int
    text: Vaddr | None

    @property
    def old(self) -> str:
        """When a table was written whose layout is not read, such as ``before Go 1.16``; empty when it is read."""
        return _OLD.get(self.magic, "")


def locate(file: ElfFile) -> Header | None:
    """The table of functions of a file; None when it has none."""
    for vaddr, size_bytes in _places(file):
        header = _header(file, Vaddr(vaddr), size_bytes)
        if header is not None:
            return header
    return None


def _places(file: ElfFile) -> Iterator[tuple[int, int]]:
    """Where the table may be, and how much of the file belongs to it at most."""
    for name in _SECTIONS:
        section = file.section(name)
        if section is not None:
            yield section.vaddr, section.size_bytes
    left = _MOST_CANDIDATES
    for segment in file.segments:
        stop = segment.file_offset + segment.file_size_bytes
        start = segment.file_offset + -segment.file_offset % _WORD_BYTES  # the linker aligns it to more than that
        if stop - start < 2 * _WORD_BYTES:
            continue
        words = np.frombuffer(file.data, "<u4", (stop - start) // _WORD_BYTES, start)
        for index in np.flatnonzero(words[1:] == _SECOND_WORD):
            place = start + int(index) * _WORD_BYTES
            if _START.match(file.data, place):
                yield segment.vaddr + place - segment.file_offset, stop - place
                left -= 1
                if not left:
                    return


def _header(file: ElfFile, vaddr: Vaddr, size_bytes: int) -> Header | None:
    head = file.read(vaddr, 8 + _HEADER.size)
    if _START.match(head) is None:
        return None
    magic = int.from_bytes(head[:4], "little")
    if magic in _OLD:
        return Header(vaddr=vaddr, data=b"", magic=magic, count=0, names=0, pc_values=0, functions=0, text=None)
    if len(head) < _HEADER.size:
        return None
    count, _, _, names, cu, files, pc_values, functions = _HEADER.unpack_from(head)
    if not 0 < count <= _MOST_FUNCTIONS or not _HEADER.size <= names < cu <= files <= pc_values < functions:
        return None
    if functions + 8 * count + 4 > size_bytes:
        return None
    text = file.pointer(vaddr + 24)
    data = file.read(vaddr, size_bytes)
    return Header(
        vaddr=vaddr,
        data=data,
        magic=magic,
        count=count,
        names=names,
        pc_values=pc_values,
        functions=functions,
        text=Vaddr(text) if file.executable(text) is not None else None,
    )


def module(file: ElfFile, header: Header) -> Vaddr | None:
    """Where the moduledata is that describes a table; None when it is not found."""
    for place in _pointers_to(file, header.vaddr):
        if (
            file.pointer(place + 8 * _WORD_NAMES) == header.vaddr + header.names
            and file.pointer(place + 8 * _WORD_FUNCTIONS) == header.vaddr + header.functions
        ):
            return Vaddr(place)
    return None


def _pointers_to(file: ElfFile, vaddr: int) -> Iterator[int]:
    """Where the address ``vaddr`` is kept, stored by the dynamic linker or by the file itself."""
    yield from (slot for slot, target in file.relocated.items() if target == vaddr)
    wanted = vaddr.to_bytes(8, "little")
    left = _MOST_CANDIDATES
    for segment in file.segments:
        if not segment.writable:
            continue
        at: int = segment.file_offset
        stop = at + segment.file_size_bytes
        while left and (at := file.data.find(wanted, at, stop)) >= 0:
            yield segment.vaddr + at - segment.file_offset
            at += 8
            left -= 1


def text_of(file: ElfFile, header: Header, place: Vaddr | None) -> Vaddr | None:
    """The address of runtime.text, that the entries in a table are relative to; None when nothing has it.

    Args:
        file: The file.
        header: Of the table.
        place: Of its moduledata.
    """
    if header.text is not None:
        return header.text
    text = file.pointer(place + 8 * _WORD_TEXT) if place is not None else 0
    return Vaddr(text) if file.executable(text) is not None else None
