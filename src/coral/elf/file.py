"""An ELF file, opened by descriptor: segments, identity, relocations.

LIEF parses the container (headers, notes, relocations); bytes are read from a mapping of the file, which costs no copy.
"""

from __future__ import annotations

import hashlib
import io
import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import lief

from coral.elf.image import ImageInfo
from coral.model.addresses import FileOffset, Vaddr
from coral.model.errors import FailedPrecondition

_ELF_MAGIC = b"\x7fELF"
# debug/buildinfo of the Go sources: magic, pointer size, flags; with flag 2 the strings follow at 32, length first.
_BUILDINFO_MAGIC = b"\xff Go buildinf:"
_BUILDINFO_INLINE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One PT_LOAD: what the kernel maps.

    Attributes:
        vaddr: Where it begins in memory, before the load bias.
        file_offset: Where it begins in the file.
        file_size_bytes: How much of it the file has.
        executable: Whether it is mapped executable.
        writable: Whether it is mapped writable.
    """

    vaddr: Vaddr
    file_offset: FileOffset
    file_size_bytes: int
    executable: bool
    writable: bool

    def __contains__(self, vaddr: int) -> bool:
        return self.vaddr <= vaddr < self.vaddr + self.file_size_bytes


class ElfFile:
    """An open ELF file.

    Args:
        fd: Its descriptor, which may be closed afterwards.
        path: For messages only.

    Raises:
        FailedPrecondition: It is no ELF file, not one for x86-64, or damaged.
    """

    def __init__(self, fd: int, path: str) -> None:
        self.path = path
        try:
            self.data: mmap.mmap | bytes = mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)
        except ValueError:
            self.data = b""
        if self.data[:4] != _ELF_MAGIC:
            raise FailedPrecondition(
                f"{path} is not an ELF file.", hint="Scripts run in an interpreter: name a function of that."
            )
        if self.data[4] != 2:
            raise FailedPrecondition(f"{path} is a 32-bit program.", hint="Only 64-bit x86-64 programs are supported.")
        self.binary = self._parse(fd)
        self.machine = str(self.binary.header.machine_type).rpartition(".")[2].lower()
        if self.machine != "x86_64":
            raise FailedPrecondition(f"{path} is for {self.machine}.", hint="Only x86-64 programs are supported.")
        self.pie = self.binary.header.file_type == lief.ELF.Header.FILE_TYPE.DYN
        self.segments = tuple(
            Segment(
                vaddr=Vaddr(segment.virtual_address),
                file_offset=FileOffset(segment.file_offset),
                file_size_bytes=min(segment.physical_size, max(0, len(self.data) - segment.file_offset)),
                executable=bool(int(segment.flags) & 1),
                writable=bool(int(segment.flags) & 2),
            )
            for segment in self.binary.segments
            if segment.type == lief.ELF.Segment.TYPE.LOAD
        )
        self._executable = tuple(segment for segment in self.segments if segment.executable)

    def _parse(self, fd: int) -> lief.ELF.Binary:
        config = lief.ELF.ParserConfig()
        config.parse_overlay = False
        # By descriptor, not by a path below /proc: the worker has no access to paths.
        binary = lief.ELF.parse(io.FileIO(fd, "rb", closefd=False), config)
        if binary is None:
            raise FailedPrecondition(f"{self.path} is a damaged ELF file.", hint="Compare it with the one that was built.")
        return binary

    @cached_property
    def info(self) -> ImageInfo:
        """What it says about itself; hashes the whole file when it has no build id."""
        build_id = self._build_id()
        version = self._go_version()
        is_go = bool(version) or self.section(".gopclntab") is not None or self.section(".note.go.buildid") is not None
        return ImageInfo(
            image_id=f"build-id:{build_id}" if build_id else f"sha256:{hashlib.sha256(self.data).hexdigest()}",
            build_id=build_id,
            machine=self.machine,
            language="go" if is_go else "c",
            go_version=version,
            pie=self.pie,
        )

    def _build_id(self) -> str:
        for note in self.binary.notes:
            if note.type == lief.ELF.Note.TYPE.GNU_BUILD_ID:
                return bytes(note.description).hex()
        return ""

    def _go_version(self) -> str:
        section = self.section(".go.buildinfo")
        if section is None:
            return ""
        head = self.read(Vaddr(section.virtual_address), 256)
        if not head.startswith(_BUILDINFO_MAGIC) or len(head) < 34 or not head[15] & _BUILDINFO_INLINE:
            return ""
        return head[33 : 33 + head[32]].decode("ascii", "replace").split(" ")[0]

    def section(self, name: str) -> lief.ELF.Section | None:
        """A section by its name; None when there is none of it."""
        return self.binary.get_section(name) if self.binary.has_section(name) else None

    def file_offset(self, vaddr: int) -> FileOffset | None:
        """Where the byte at ``vaddr`` is in the file; None when the file does not hold it (not mapped, or .bss)."""
        for segment in self.segments:
            if vaddr in segment:
                return FileOffset(vaddr - segment.vaddr + segment.file_offset)
        return None

    def executable(self, vaddr: int) -> Segment | None:
        """The executable segment that holds ``vaddr``."""
        for segment in self._executable:
            if vaddr in segment:
                return segment
        return None

    def read(self, vaddr: int, size_bytes: int) -> bytes:
        """The bytes at ``vaddr``, as many as the file has of them up to ``size_bytes``."""
        for segment in self.segments:
            if vaddr in segment:
                start = vaddr - segment.vaddr + segment.file_offset
                stop = min(start + size_bytes, segment.file_offset + segment.file_size_bytes)
                return self.data[start:stop]
        return b""

    @property
    def lowest(self) -> int:
        """The first address of the file in memory."""
        return min((segment.vaddr for segment in self.segments), default=0)

    @property
    def highest(self) -> int:
        """Behind its last address that the file holds."""
        return max((segment.vaddr + segment.file_size_bytes for segment in self.segments), default=0)

    @property
    def executable_segments(self) -> Iterable[Segment]:
        """The segments that hold code."""
        return self._executable

    @cached_property
    def slots(self) -> dict[int, str]:
        """The names of the symbols that the dynamic linker stores addresses of, by the address of the slot."""
        wanted = (lief.ELF.Relocation.TYPE.X86_64_JUMP_SLOT, lief.ELF.Relocation.TYPE.X86_64_GLOB_DAT)
        return {
            relocation.address: relocation.symbol.name
            for relocation in (*self.binary.pltgot_relocations, *self.binary.dynamic_relocations)
            if relocation.type in wanted and relocation.has_symbol
        }

    @cached_property
    def relocated(self) -> dict[int, int]:
        """The addresses (before the load bias) that the dynamic linker stores itself, by the address of the slot."""
        wanted = lief.ELF.Relocation.TYPE.X86_64_RELATIVE
        return {
            relocation.address: relocation.addend
            for relocation in self.binary.dynamic_relocations
            if relocation.type == wanted and relocation.addend
        }

    def pointer(self, vaddr: int) -> int:
        """The 64-bit address that is at ``vaddr`` once the file is loaded (before the load bias); 0 when there is none."""
        found = self.relocated.get(vaddr)
        return found if found is not None else int.from_bytes(self.read(vaddr, 8), "little")
