"""What Go's runtime knows of a function: its table of functions, .gopclntab.

The layout is that of internal/abi and runtime/symtab.go since Go 1.18 (magic 0xfffffff0, from 1.20 on 0xfffffff1): a header,
then at ``pclnOffset`` pairs of 32-bit (entry offset, offset of the ``_func``), sorted, relative to runtime.text.
"""

from __future__ import annotations

import bisect
import struct
from typing import NamedTuple

import numpy as np

from coral.elf.file import ElfFile
from coral.model.addresses import Vaddr

_MAGICS = (0xFFFFFFF0, 0xFFFFFFF1)
_HEADER = struct.Struct("<IxxBBQQQQQQQQ")
# entryOff, nameOff, args, deferreturn, pcsp, pcfile, pcln, npcdata, cuOffset, startLine, funcID, flag
_FUNC = struct.Struct("<IiiIIIIIIiBB")
_FLAG_WRITES_SP = 2
_FLAG_ASSEMBLY = 4


class GoFunction(NamedTuple):
    """What the runtime knows of one function.

    Attributes:
        entry: Its first byte.
        resumes_at: Where it goes on after a panic that it recovered (its call of runtime.deferreturn); None when never.
        writes_sp: Whether it switches stacks.
        assembly: Whether it is written in assembly.
    """

    entry: Vaddr
    resumes_at: Vaddr | None
    writes_sp: bool
    assembly: bool


class GoTable:
    """Looks up functions of the Go part of a file.

    Args:
        file: The file.
        text: The address of runtime.text; the header holds none since Go 1.26.
    """

    def __init__(self, file: ElfFile, text: Vaddr) -> None:
        self._entries: list[int] = []
        section = file.section(".gopclntab") or file.section(".data.rel.ro.gopclntab")
        if section is None:
            return
        self._text = text
        self._table = file.read(section.vaddr, section.size_bytes)
        if len(self._table) < _HEADER.size:
            return
        magic, _, pointer_bytes, count, *_, functions = _HEADER.unpack_from(self._table)
        if magic not in _MAGICS or pointer_bytes != 8 or functions + 8 * count > len(self._table):
            return
        pairs = np.frombuffer(self._table, "<u4", 2 * count, functions).reshape(count, 2)
        self._entries = pairs[:, 0].tolist()
        self._offsets = (pairs[:, 1].astype("u8") + functions).tolist()

    def __bool__(self) -> bool:
        return bool(self._entries)

    def at(self, vaddr: int) -> GoFunction | None:
        """The function that begins at ``vaddr``; None when Go's runtime knows none there."""
        wanted = vaddr - self._text if self._entries else -1
        index = bisect.bisect_left(self._entries, wanted)
        if index >= len(self._entries) or self._entries[index] != wanted:
            return None
        where = self._offsets[index]
        if where + _FUNC.size > len(self._table):
            return None
        fields = _FUNC.unpack_from(self._table, where)
        if fields[0] != wanted:
            return None
        resume, flag = fields[3], fields[11]
        return GoFunction(
            entry=Vaddr(vaddr),
            resumes_at=Vaddr(vaddr + resume) if resume else None,
            writes_sp=bool(flag & _FLAG_WRITES_SP),
            assembly=bool(flag & _FLAG_ASSEMBLY),
        )
