"""An ELF file, opened by descriptor: segments, identity, relocations; bytes are read from a mapping, which costs no copy."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from coral.elf.debuglink import debug_link
from coral.elf.dynamic import Dynamic
from coral.elf.headers import ET_DYN, PT_LOAD, Headers, Section
from coral.elf.image import ImageInfo
from coral.model.addresses import FileOffset, Vaddr
from coral.model.errors import FailedPrecondition

# debug/buildinfo of the Go sources: magic, pointer size, flags; with flag 2 the strings follow at 32, length first.
_BUILDINFO_MAGIC = b"\xff Go buildinf:"
_BUILDINFO_INLINE = 2

_ADDRESS_END = 1 << 47  # of a process on x86-64; the kernel maps no segment behind it


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
        except OSError as error:
            # Larger than what a reader may map, or on a file system without mappings.
            raise FailedPrecondition(
                f"{path} cannot be mapped into memory: {error.strerror}.", hint=f"It has {os.fstat(fd).st_size:,} bytes."
            ) from None
        self.headers = Headers(self.data, path)
        self.machine = self.headers.machine
        if self.machine != "x86_64":
            raise FailedPrecondition(f"{path} is for {self.machine}.", hint="Only x86-64 programs are supported.")
        self.pie = self.headers.type == ET_DYN
        self.segments = tuple(
            Segment(
                vaddr=program.vaddr,
                # Some have nothing in the file, and are said to lie behind its end.
                file_offset=FileOffset(min(program.file_offset, len(self.data))),
                file_size_bytes=min(program.file_size_bytes, max(0, len(self.data) - program.file_offset)),
                executable=bool(program.flags & 1),
                writable=bool(program.flags & 2),
            )
            for program in self.headers.programs
            if program.type == PT_LOAD and program.vaddr + program.file_size_bytes <= _ADDRESS_END
        )
        self._executable = tuple(segment for segment in self.segments if segment.executable)

    @cached_property
    def info(self) -> ImageInfo:
        """What it says about itself; hashes the whole file when it has no build id."""
        build_id = self.headers.build_id
        version = self._go_version()
        link = debug_link(self.headers)
        is_go = bool(version) or self.section(".gopclntab") is not None or self.section(".note.go.buildid") is not None
        return ImageInfo(
            image_id=f"build-id:{build_id}" if build_id else f"sha256:{hashlib.sha256(self.data).hexdigest()}",
            build_id=build_id,
            machine=self.machine,
            language="go" if is_go else self._language(),
            go_version=version,
            pie=self.pie,
            stripped=self.section(".symtab") is None,
            debug_link=link.name if link is not None else "",
        )

    def _language(self) -> str:
        """``rust``, ``cpp`` or ``c``: which compiler wrote its name, and whether C++ exceptions have their handler."""
        if self._holds(".comment", b"rustc version"):
            return "rust"
        return "cpp" if any(self._holds(name, b"\0__gxx_personality_v0\0") for name in (".dynstr", ".strtab")) else "c"

    def _holds(self, name: str, content: bytes) -> bool:
        section = self.section(name)
        if section is None or section.file_offset >= len(self.data):  # mmap takes no number of more than 63 bits
            return False
        end = min(section.file_offset + section.size_bytes, len(self.data))
        return self.data.find(content, section.file_offset, end) >= 0

    def _go_version(self) -> str:
        section = self.section(".go.buildinfo")
        if section is None:
            return ""
        head = self.read(section.vaddr, 256)
        if not head.startswith(_BUILDINFO_MAGIC) or len(head) < 34 or not head[15] & _BUILDINFO_INLINE:
            return ""
        return head[33 : 33 + head[32]].decode("ascii", "replace").split(" ")[0]

    def section(self, name: str) -> Section | None:
        """A section by its name; None when there is none of it."""
        return self.headers.section(name)

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
    def dynamic(self) -> Dynamic:
        """What it says to the dynamic linker."""
        return Dynamic(self, self.headers)

    @property
    def slots(self) -> dict[int, str]:
        """The names of the symbols that the dynamic linker stores addresses of, by the address of the slot."""
        return self.dynamic.slots

    @property
    def relocated(self) -> dict[int, int]:
        """The addresses (before the load bias) that the dynamic linker stores itself, by the address of the slot."""
        return self.dynamic.relocated

    def pointer(self, vaddr: int) -> int:
        """The 64-bit address that is at ``vaddr`` once the file is loaded (before the load bias); 0 when there is none."""
        found = self.relocated.get(vaddr)
        return found if found is not None else int.from_bytes(self.read(vaddr, 8), "little")
