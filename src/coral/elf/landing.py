"""Landing pads: the places in a function to which the unwinder jumps when an exception or a panic passes through it.

No instruction leads there; the language-specific data area (LSDA, in .gcc_except_table) lists them: for each range of calls,
the pad that an exception out of those calls goes to. g++, clang and rustc all write the table that __gxx_personality_v0 reads
(Itanium C++ ABI: Exception Handling, level II; its layout is that of GCC's unwind-pe.h and libsupc++/eh_personality.cc).
"""

from __future__ import annotations

from typing import NamedTuple

from coral.elf.encoded import OMITTED, Damaged, Reader
from coral.elf.file import ElfFile
from coral.elf.unwind import Unwinding
from coral.model.addresses import Vaddr

_LARGEST_BYTES = 1 << 20
_HEAD_BYTES = 64


class Landing(NamedTuple):
    """One entry of the table.

    Attributes:
        start: Of the range of instructions.
        end: Behind its last byte.
        pad: Where an exception out of them goes.
    """

    start: Vaddr
    end: Vaddr
    pad: Vaddr


def landings(file: ElfFile, unwinding: Unwinding) -> tuple[Landing, ...] | None:
    """The landing pads of the code that ``unwinding`` describes, empty when there are none; None when not understood.

    Args:
        file: The image.
        unwinding: The frame description entry of the function, or of a part of it.
    """
    if unwinding.lsda is None:
        return ()
    try:
        return _read(file, unwinding, unwinding.lsda)
    except Damaged:
        return None


def _read(file: ElfFile, unwinding: Unwinding, lsda: Vaddr) -> tuple[Landing, ...]:
    head = Reader(file.read(lsda, _HEAD_BYTES), lsda)
    encoding = head.number(1)
    # An encoded zero would be no address in a file; with LLVM's split functions it stands for base 0 (absolute pads).
    base = unwinding.start if encoding == OMITTED else head.encoded(encoding) or 0
    if head.number(1) != OMITTED:
        head.uleb()  # where the table of types ends
    encoding = head.number(1)
    length = head.uleb()
    if length > _LARGEST_BYTES:
        raise Damaged
    data = file.read(head.vaddr, length)
    if len(data) < length:
        raise Damaged
    table = Reader(data, head.vaddr)
    found = []
    while table.left:
        start, size, pad = (table.encoded(encoding & 0x0F) or 0 for _ in range(3))
        table.uleb()  # the action: which types are caught
        if pad:
            found.append(Landing(Vaddr(unwinding.start + start), Vaddr(unwinding.start + start + size), Vaddr(base + pad)))
    return tuple(found)
