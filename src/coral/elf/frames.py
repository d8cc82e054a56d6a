"""Ranges of functions and of their cold parts, from .eh_frame: compilers write one FDE for each, also in stripped files.

The format is the Linux Standard Base's (Core, "Exception Frames"): .eh_frame_hdr, which PT_GNU_EH_FRAME leads to, has a
sorted table of (first address, FDE). Only the encodings that GNU ld, gold, lld and mold write are read: a table of 32-bit
offsets from the section, FDEs with 32-bit pc-relative addresses; anything else gives no ranges, which callers must expect.
Where there is no such table (``ld --no-eh-frame-hdr``), the entries of .eh_frame are read one by one.
"""

from __future__ import annotations

import bisect
import struct
from typing import NamedTuple

import numpy as np

from coral.elf import unwind
from coral.elf.file import ElfFile
from coral.elf.headers import PT_GNU_EH_FRAME
from coral.model.addresses import Vaddr

_TABLE_ENCODING = 0x3B  # DW_EH_PE_datarel | DW_EH_PE_sdata4
_COUNT_ENCODING = 0x03  # DW_EH_PE_udata4
_DWARF_64 = 0xFFFFFFFF
_ADDRESS_ENCODING = 0x1B  # DW_EH_PE_pcrel | DW_EH_PE_sdata4
_ENTRY = struct.Struct("<IIi")
_MOST_WALKED = 1_000_000


class FrameRange(NamedTuple):
    """One FDE's range.

    Attributes:
        start: Of the first byte.
        end: Behind the last one.
    """

    start: Vaddr
    end: Vaddr


class FrameTable:
    """Looks up which FDE covers an address."""

    def __init__(self, file: ElfFile) -> None:
        self._file = file
        self._starts: list[int] = []
        self._descriptions: list[int] = []
        segment = file.headers.program(PT_GNU_EH_FRAME)
        base = segment.vaddr if segment is not None else 0
        head = file.read(base, segment.file_size_bytes) if segment is not None else b""
        if len(head) < 12 or head[0] != 1 or head[2] != _COUNT_ENCODING or head[3] != _TABLE_ENCODING:
            self._walk(file)
            return
        count = min(int.from_bytes(head[8:12], "little"), (len(head) - 12) // 8)
        table = np.frombuffer(head, "<i4", count * 2, 12).reshape(count, 2).astype("i8") + base
        self._starts = table[:, 0].tolist()
        self._descriptions = table[:, 1].tolist()

    def _walk(self, file: ElfFile) -> None:
        """Takes in the entries one by one."""
        section = file.section(".eh_frame")
        content = file.read(section.vaddr, section.size_bytes) if section is not None else b""
        encodings: dict[int, int | None] = {}
        found = []
        at = 0
        for _ in range(_MOST_WALKED):
            if section is None or at + _ENTRY.size > len(content):
                break
            length, back, distance = _ENTRY.unpack_from(content, at)
            if not length or length == _DWARF_64:
                break
            # What follows the length is the distance back to the common entry; 0 in a common entry itself.
            common = section.vaddr + at + 4 - back
            if back and common not in encodings:
                encodings[common] = unwind.address_encoding(file, common)
            if back and encodings[common] == _ADDRESS_ENCODING:
                found.append((section.vaddr + at + 8 + distance, section.vaddr + at))
            at += 4 + length
        found.sort()
        self._starts = [start for start, _ in found]
        self._descriptions = [description for _, description in found]

    def covering(self, vaddr: int) -> FrameRange | None:
        """The range of the FDE that covers ``vaddr``; None when none does."""
        index = bisect.bisect_right(self._starts, vaddr) - 1
        if index < 0:
            return None
        where = self._descriptions[index]
        description = self._file.read(where, 16)
        if len(description) < 16:
            return None
        # length, CIE pointer, first address relative to itself, size. Agreement with the table proves the encoding.
        start = where + 8 + int.from_bytes(description[8:12], "little", signed=True)
        end = start + int.from_bytes(description[12:16], "little")
        if start != self._starts[index] or not start <= vaddr < end:
            return None
        return FrameRange(Vaddr(start), Vaddr(end))

    def description(self, vaddr: int) -> Vaddr | None:
        """Where the last FDE is that begins at or before ``vaddr``; None when there is none."""
        index = bisect.bisect_right(self._starts, vaddr) - 1
        return Vaddr(self._descriptions[index]) if index >= 0 else None

    def size_at(self, vaddr: int) -> int:
        """The size of the range that begins at ``vaddr``; 0 when none does."""
        found = self.covering(vaddr)
        return found.end - found.start if found is not None and found.start == vaddr else 0

    def next_start(self, vaddr: int) -> Vaddr | None:
        """The first address of the next FDE behind ``vaddr``."""
        index = bisect.bisect_right(self._starts, vaddr)
        return Vaddr(self._starts[index]) if index < len(self._starts) else None
