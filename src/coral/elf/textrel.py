"""Code that the dynamic linker writes into before it runs: text relocations (System V gABI, chapter 5: DT_TEXTREL).

What such an instruction says in the file is not what runs. A probe executes a copy that the kernel makes from the file, so
there must be none on it; and where it jumps to, or what it calls, is not known.
"""

from __future__ import annotations

import numpy as np

from coral.elf.arch import Flow, Instruction
from coral.elf.file import ElfFile

# R_X86_64_PC32, _PLT32, _GOTPCREL, _32, _32S (System V psABI, table 4.9); what else can stand in code has 64 bits.
_WORDS = (2, 4, 9, 10, 11)
_LONG_BYTES, _WORD_BYTES = 8, 4


class TextRelocations:
    """The ranges of a file's code that the dynamic linker writes.

    Args:
        file: The file.
    """

    def __init__(self, file: ElfFile) -> None:
        places = file.dynamic.relocations
        slots = places["slot"].astype(np.int64)
        inside = np.zeros(len(slots), bool)
        for segment in file.executable_segments:
            inside |= (slots >= segment.vaddr) & (slots < segment.vaddr + segment.file_size_bytes)
        order = np.argsort(slots[inside], kind="stable")
        self._starts = slots[inside][order]
        self._bytes = np.where(np.isin(places["type"][inside], _WORDS), _WORD_BYTES, _LONG_BYTES)[order]

    def __bool__(self) -> bool:
        """Whether there are any; most files have none."""
        return len(self._starts) > 0

    def touch(self, start: int, end: int) -> bool:
        """Whether any byte from ``start`` on and before ``end`` is written."""
        first, last = np.searchsorted(self._starts, (start - _LONG_BYTES, end))
        return bool((self._starts[first:last] + self._bytes[first:last] > start).any())

    def unknown(self, instructions: list[Instruction]) -> list[Instruction]:
        """The same instructions, those whose target is not in the file without it: jumps cannot be followed then."""
        return [
            self._without_target(each) if each.target is not None and self.touch(each.address, each.end) else each
            for each in instructions
        ]

    def _without_target(self, instruction: Instruction) -> Instruction:
        flow = Flow.CALL if instruction.flow is Flow.CALL else Flow.FOREIGN
        return instruction._replace(target=None, flow=flow)
