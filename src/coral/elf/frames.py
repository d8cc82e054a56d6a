"""Ranges of functions and of their cold parts, from .eh_frame: compilers write one FDE for each, also in stripped files.

The format is the Linux Standard Base's (Core, "Exception Frames"): .eh_frame_hdr has a sorted table of (first address, FDE).
Only the encodings that GNU ld, gold and lld write are read: a table of 32-bit offsets from the section, FDEs with 32-bit
pc-relative addresses; anything else gives no ranges, which callers must expect.
"""

from __future__ import annotations

import bisect
from typing import NamedTuple

import numpy as np

from coral.elf.file import ElfFile
from coral.model.addresses import Vaddr

_TABLE_ENCODING = 0x3B  # DW_EH_PE_datarel | DW_EH_PE_sdata4
_COUNT_ENCODING = 0x03  # DW_EH_PE_udata4


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
        section = file.section(".eh_frame_hdr")
        if section is None:
            return
        base = section.vaddr
        head = file.read(base, section.size_bytes)
        if len(head) < 12 or head[0] != 1 or head[2] != _COUNT_ENCODING or head[3] != _TABLE_ENCODING:
            return
        count = min(int.from_bytes(head[8:12], "little"), (len(head) - 12) // 8)
        table = np.frombuffer(head, "<i4", count * 2, 12).reshape(count, 2).astype("i8") + base
        self._starts = table[:, 0].tolist()
        self._descriptions = table[:, 1].tolist()

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
