"""The tables that open an ELF file: its header, its program headers, its section headers, its notes.

Formats: System V gABI, chapters 4 and 5; figures of x86-64. Nothing here trusts the file: what lies outside of it is taken
for absent, as it is in a file that lost its section headers (``sstrip``), which runs all the same.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cached_property
from mmap import mmap
from typing import NamedTuple

from coral.model.addresses import FileOffset, Vaddr
from coral.model.errors import FailedPrecondition
from coral.model.text import printable

Data = mmap | bytes

MAGIC = b"\x7fELF"
ET_DYN = 3
EM_X86_64 = 62
PT_LOAD, PT_DYNAMIC, PT_NOTE, PT_GNU_EH_FRAME = 1, 2, 4, 0x6474E550
SHT_NOTE, SHT_NOBITS = 7, 8
SHF_ALLOC, SHF_COMPRESSED = 0x2, 0x800
_NT_GNU_BUILD_ID = 3

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_NOTE = struct.Struct("<III")
_EXTENDED = 0xFFFF  # PN_XNUM: the number is in the first section header
_MOST_SECTIONS = 1 << 20
_LONGEST_NAME_BYTES = 4096
_MOST_NOTES = 256
_LARGEST_NOTES_BYTES = 1 << 16
_LARGEST_SECTION_BYTES = 1 << 30

# e_machine of what Linux runs on, for messages: the names that `uname -m` has.
_MACHINES = {3: "i386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64"} | {
    243: "riscv64",
    258: "loongarch64",
}


class ProgramHeader(NamedTuple):
    """One program header."""

    type: int
    flags: int
    file_offset: FileOffset
    vaddr: Vaddr
    file_size_bytes: int
    memory_size_bytes: int


class Section(NamedTuple):
    """One section header.

    Attributes:
        name: Of the section.
        type: SHT_*.
        flags: SHF_*.
        vaddr: Where it is in memory; 0 when it is not loaded.
        file_offset: Where it is in the file.
        size_bytes: In the file; in memory for SHT_NOBITS.
        link: The number of a section that belongs to it, such as a symbol table's strings.
    """

    name: str
    type: int
    flags: int
    vaddr: Vaddr
    file_offset: FileOffset
    size_bytes: int
    link: int


class Headers:
    """The headers of a 64-bit ELF file.

    Args:
        data: The whole file.
        path: For messages.

    Raises:
        FailedPrecondition: It is no ELF file, a 32-bit one, or its header is damaged.
    """

    def __init__(self, data: Data, path: str) -> None:
        self._data = data
        self._path = path
        if data[:4] != MAGIC:
            raise FailedPrecondition(
                f"{path} is not an ELF file.", hint="Scripts run in an interpreter: name a function of that."
            )
        if data[4:5] == b"\x01":
            raise FailedPrecondition(f"{path} is a 32-bit program.", hint="Only 64-bit x86-64 programs are supported.")
        if len(data) < _HEADER.size or data[4:6] != b"\x02\x01":
            raise _damaged(path)
        (_, self.type, machine, _, self.entry, self._programs_at, self._sections_at, _, _, entry_bytes, count) = (
            _HEADER.unpack_from(data)[:11]
        )
        self.machine = _MACHINES.get(machine, f"machine {machine}")
        section_bytes, self._section_count, self._names_index = _HEADER.unpack_from(data)[11:]
        if section_bytes != _SECTION.size:
            self._sections_at = 0
        if count == _EXTENDED:
            count = self._raw_section(0)[7] if self._sections_at else 0
        if (count and entry_bytes != _PROGRAM.size) or self._programs_at + count * _PROGRAM.size > len(data):
            raise _damaged(path)
        self.programs = tuple(self._read_programs(count))

    def _read_programs(self, count: int) -> Iterator[ProgramHeader]:
        for index in range(count):
            kind, flags, offset, vaddr, _, file_size, memory_size, _ = _PROGRAM.unpack_from(
                self._data, self._programs_at + index * _PROGRAM.size
            )
            yield ProgramHeader(kind, flags, FileOffset(offset), Vaddr(vaddr), file_size, memory_size)

    def _raw_section(self, index: int) -> tuple[int, ...]:
        at = self._sections_at + index * _SECTION.size
        if at + _SECTION.size > len(self._data):
            return (0,) * 10
        return _SECTION.unpack_from(self._data, at)

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """All sections, by number; none when the file has lost its section headers."""
        count, names_index = self._section_count, self._names_index
        if not self._sections_at:
            return ()
        first = self._raw_section(0)
        count = count or min(first[5], _MOST_SECTIONS)
        names_index = first[6] if names_index == _EXTENDED else names_index
        if self._sections_at + count * _SECTION.size > len(self._data):
            return ()
        names_at, names_size = self._raw_section(names_index)[4:6] if names_index < count else (0, 0)
        names_end = min(names_at + names_size, len(self._data))
        found = []
        for index in range(count):
            name, kind, flags, vaddr, offset, size, link, _, _, _ = self._raw_section(index)
            at = names_at + name
            end = self._data.find(b"\0", at, min(at + _LONGEST_NAME_BYTES, names_end)) if at < names_end else -1
            text = self._data[at:end].decode("utf-8", "replace") if end > at else ""
            found.append(Section(text, kind, flags, Vaddr(vaddr), FileOffset(offset), size, link))
        return tuple(found)

    @cached_property
    def _by_name(self) -> dict[str, Section]:
        return {section.name: section for section in reversed(self.sections)}

    def section(self, name: str) -> Section | None:
        """The first section of a name; None when there is none."""
        return self._by_name.get(name)

    def program(self, kind: int) -> ProgramHeader | None:
        """The first program header of a type; None when there is none."""
        return next((program for program in self.programs if program.type == kind), None)

    def content(self, section: Section) -> bytes:
        """What a section holds in the file; empty when it holds nothing there, or is not all in the file.

        Raises:
            FailedPrecondition: It is absurdly large, as a sparse file can be.
        """
        end = section.file_offset + section.size_bytes
        if section.type == SHT_NOBITS or end > len(self._data):
            return b""
        if section.size_bytes > _LARGEST_SECTION_BYTES:
            raise FailedPrecondition(
                f"The section {printable(section.name)} of {self._path} has more than 1 GiB.", hint="Strip it from the file."
            )
        return self._data[section.file_offset : end]

    @cached_property
    def build_id(self) -> str:
        """The GNU build id in hex; empty when there is none."""
        # A file of debug information has the program headers of its image, whose offsets mean nothing there.
        places = [(each.file_offset, each.size_bytes) for each in self.sections if each.type == SHT_NOTE]
        places += [(each.file_offset, each.file_size_bytes) for each in self.programs if each.type == PT_NOTE]
        for offset, size in places[:_MOST_NOTES]:
            for name, kind, description in _notes(self._data[offset : offset + min(size, _LARGEST_NOTES_BYTES)]):
                if name == b"GNU\0" and kind == _NT_GNU_BUILD_ID and description:
                    return description.hex()
        return ""


def _notes(data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """The notes in ``data``: name, type, description. Each part is padded to four bytes on Linux, whatever the alignment."""
    at = 0
    for _ in range(_MOST_NOTES):
        if at + _NOTE.size > len(data):
            return
        name_bytes, description_bytes, kind = _NOTE.unpack_from(data, at)
        name_at = at + _NOTE.size
        description_at = name_at + (name_bytes + 3 & ~3)
        at = description_at + (description_bytes + 3 & ~3)
        if description_at + description_bytes > len(data):
            return
        yield data[name_at : name_at + name_bytes], kind, data[description_at : description_at + description_bytes]


def _damaged(path: str) -> FailedPrecondition:
    return FailedPrecondition(f"{path} is a damaged ELF file.", hint="Compare it with the one that was built.")
