"""What .eh_frame says of the code of one function: how deep its stack is at each instruction, and where its landing pads are.

Compilers write this for the unwinder, which walks the stack by it and jumps to landing pads; so it is true wherever an
exception can pass. The format is the Linux Standard Base's (Core, "Exception Frames"), the instructions are those of DWARF 5
(section 6.4.2), of which only those matter here that say where the canonical frame address is: on x86-64 the stack pointer
at the function's first instruction plus 8.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import NamedTuple

from coral.elf.encoded import Damaged, Reader
from coral.elf.file import ElfFile
from coral.model.addresses import Vaddr

_LARGEST_BYTES = 1 << 20
_MOST_ROWS = 100_000
_NEST = 64

# DWARF 5, table 7.29, and GNU's: what the operands are. u: ULEB128, s: SLEB128, b: a block with its length, a digit: bytes.
_OPERANDS = {
    **dict.fromkeys((0x00, 0x0A, 0x0B, 0x2D), ""),
    **dict.fromkeys((0x06, 0x07, 0x08, 0x0D, 0x0E, 0x2E), "u"),
    **dict.fromkeys((0x05, 0x09, 0x0C, 0x14, 0x2F), "uu"),
    **dict.fromkeys((0x11, 0x12, 0x15), "us"),
    **dict.fromkeys((0x10, 0x16), "ub"),
    **dict(zip((0x0F, 0x13, 0x02, 0x03, 0x04, 0x1D), "bs1248", strict=True)),
}
_ADVANCES = (0x02, 0x03, 0x04, 0x1D)


class Row(NamedTuple):
    """What holds from one instruction on.

    Attributes:
        start: The instruction.
        register: DWARF's number of the register that the canonical frame address is counted from; -1 when it is computed.
        offset: How many bytes it lies above that register.
        arguments_bytes: How much of the stack the unwinder takes away before it jumps to a landing pad.
    """

    start: Vaddr
    register: int
    offset: int
    arguments_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwinding:
    """One frame description entry.

    Attributes:
        start: Of the first byte that it describes.
        end: Behind the last one.
        rows: By address; the first is for ``start``.
        lsda: Where the table of its landing pads is; None when it has none.
    """

    start: Vaddr
    end: Vaddr
    rows: tuple[Row, ...]
    lsda: Vaddr | None

    def at(self, vaddr: int) -> Row:
        """The row that holds at ``vaddr``, which must lie between ``start`` and ``end``."""
        return self.rows[bisect.bisect_right(self.rows, vaddr, key=lambda row: row.start) - 1]


@dataclass(slots=True, kw_only=True)
class _Common:
    """A common information entry."""

    code_factor: int
    data_factor: int
    encoding: int = 0
    lsda_encoding: int = 0xFF
    has_data: bool = False
    program: bytes = b""


@dataclass(slots=True, kw_only=True)
class _Rows:
    """The rows while they are computed."""

    at: int
    register: int = -1
    offset: int = 0
    arguments_bytes: int = 0
    found: list[Row] = field(default_factory=list)
    remembered: list[tuple[int, int]] = field(default_factory=list)


def read(file: ElfFile, description: int) -> Unwinding | None:
    """The frame description entry at ``description``; None when it is damaged or written in a way that is not read here.

    Args:
        file: The image.
        description: Its address, from .eh_frame_hdr.
    """
    try:
        return _read(file, description)
    except Damaged:
        return None


def address_encoding(file: ElfFile, common: int) -> int | None:
    """How the frame description entries of the common information entry at ``common`` write addresses (DW_EH_PE_*).

    Returns:
        None when the entry is damaged or written in a way that is not read here.
    """
    try:
        return _common(file, common).encoding
    except Damaged:
        return None


def _read(file: ElfFile, description: int) -> Unwinding | None:
    reader = _entry(file, description)
    at = reader.vaddr
    common = _common(file, at - reader.number(4))
    start = reader.encoded(common.encoding)
    size = reader.encoded(common.encoding & 0x0F)
    if start is None or not size or size < 0:
        return None
    lsda = None
    if common.has_data:
        length = reader.uleb()
        behind = reader.vaddr + length
        if common.lsda_encoding != 0xFF and length:
            lsda = reader.encoded(common.lsda_encoding)
        reader.skip(behind - reader.vaddr)
    rows = _Rows(at=start)
    _execute(Reader(common.program, 0), common, rows)
    rows.found = [Row(Vaddr(start), rows.register, rows.offset, rows.arguments_bytes)]
    initial = (rows.register, rows.offset)
    _execute(reader, common, rows, initial=initial)
    return Unwinding(
        start=Vaddr(start), end=Vaddr(start + size), rows=tuple(rows.found), lsda=Vaddr(lsda) if lsda is not None else None
    )


def _entry(file: ElfFile, vaddr: int) -> Reader:
    """What follows the length of an entry."""
    head = Reader(file.read(vaddr, 12), vaddr)
    length = head.number(4)
    if length == 0xFFFFFFFF or not 4 < length <= _LARGEST_BYTES:  # the first: 64-bit DWARF, which no linker writes here
        raise Damaged
    return Reader(file.read(vaddr + 4, length), vaddr + 4)


def _common(file: ElfFile, vaddr: int) -> _Common:
    reader = _entry(file, vaddr)
    if reader.number(4) != 0:
        raise Damaged
    if reader.number(1) not in (1, 3):
        raise Damaged
    augmentation = reader.text()
    common = _Common(code_factor=reader.uleb(), data_factor=reader.sleb())
    reader.uleb()  # the column of the return address
    if augmentation[:1] == b"z":
        common.has_data = True
        length = reader.uleb()
        behind = reader.vaddr + length
        for letter in augmentation[1:]:
            if letter == ord("R"):
                common.encoding = reader.number(1)
            elif letter == ord("L"):
                common.lsda_encoding = reader.number(1)
            elif letter == ord("P"):
                encoding = reader.number(1)
                reader.skip_encoded(encoding)
            elif letter not in b"SB":  # a signal frame; pointer authentication
                raise Damaged
        reader.skip(behind - reader.vaddr)
    elif augmentation:
        raise Damaged
    common.program = reader.rest()
    return common


def _execute(reader: Reader, common: _Common, rows: _Rows, *, initial: tuple[int, int] | None = None) -> None:
    """Runs call frame instructions; a row is made for each address that they get to."""
    while reader.left:
        opcode = reader.number(1)
        high, low = opcode & 0xC0, opcode & 0x3F
        if high:
            if high == 0x40:  # DW_CFA_advance_loc
                _advance(rows, low * common.code_factor)
            elif high == 0x80:  # DW_CFA_offset
                reader.uleb()
            continue
        if low == 0x01:  # DW_CFA_set_loc
            place = reader.encoded(common.encoding)
            _advance(rows, (place or 0) - rows.at)
            continue
        if low not in _OPERANDS:
            raise Damaged
        operands = [_operand(reader, kind) for kind in _OPERANDS[low]]
        if low in _ADVANCES:
            _advance(rows, operands[0] * common.code_factor)
        elif low == 0x0A:  # DW_CFA_remember_state
            if len(rows.remembered) >= _NEST:
                raise Damaged
            rows.remembered.append((rows.register, rows.offset))
        elif low == 0x0B:  # DW_CFA_restore_state
            if not rows.remembered:
                raise Damaged
            rows.register, rows.offset = rows.remembered.pop()
        elif low == 0x0C:  # DW_CFA_def_cfa
            rows.register, rows.offset = operands
        elif low == 0x0D:  # DW_CFA_def_cfa_register
            rows.register = operands[0]
        elif low == 0x0E:  # DW_CFA_def_cfa_offset
            rows.offset = operands[0]
        elif low == 0x0F:  # DW_CFA_def_cfa_expression
            rows.register = -1
        elif low == 0x12:  # DW_CFA_def_cfa_sf
            rows.register, rows.offset = operands[0], operands[1] * common.data_factor
        elif low == 0x13:  # DW_CFA_def_cfa_offset_sf
            rows.offset = operands[0] * common.data_factor
        elif low == 0x2E:  # DW_CFA_GNU_args_size
            rows.arguments_bytes = operands[0]
        if rows.found and initial is not None:
            rows.found[-1] = Row(Vaddr(rows.at), rows.register, rows.offset, rows.arguments_bytes)


def _operand(reader: Reader, kind: str) -> int:
    if kind == "u":
        return reader.uleb()
    if kind == "s":
        return reader.sleb()
    if kind == "b":
        reader.skip(reader.uleb())
        return 0
    return reader.number(int(kind))


def _advance(rows: _Rows, by: int) -> None:
    if by < 0 or len(rows.found) >= _MOST_ROWS:
        raise Damaged
    if by:
        rows.at += by
        rows.found.append(Row(Vaddr(rows.at), rows.register, rows.offset, rows.arguments_bytes))
