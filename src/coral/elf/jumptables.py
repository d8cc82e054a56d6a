"""Jump tables: where ``switch`` goes.

Two shapes, both of GCC and clang, one of them also Go's: elements of 32 bits, relative to the table (position independent C),
and elements of 64 bits that are addresses (the rest). Which table a jump reads is known from the registers; how long it is
from the check of its index, or else from where its elements stop to be places in the function.
"""

from __future__ import annotations

from collections.abc import Callable

from coral.elf.arch import Value, ValueKind
from coral.elf.program import Program
from coral.model.addresses import Vaddr

_LIMIT = 65_536


def read(program: Program, table: Value, length: int | None, inside: Callable[[Vaddr], bool]) -> list[Vaddr] | None:
    """The places that a jump through ``table`` can go to.

    Args:
        program: The image.
        table: What the jump's register or memory operand is known to hold.
        length: How many elements there are; None when no check was found.
        inside: Whether a place is an instruction of the function, for tables of unknown length.

    Returns:
        The places, without repetition; None when the table cannot be one.
    """
    if table.kind is ValueKind.RELATIVE_TARGET:
        size = 4
    elif table.kind is ValueKind.POINTER:
        size = 8
    else:
        return None
    found: dict[Vaddr, None] = {}
    for index in range(_LIMIT if length is None else length):
        where = table.number + index * size
        raw = program.file.read(where, size)
        if len(raw) < size:
            break
        target = (
            Vaddr(table.number + int.from_bytes(raw, "little", signed=True))
            if size == 4
            else Vaddr(program.file.pointer(where))
        )
        if length is None:
            if not inside(target):
                # Another executable address here may be a cold part of this function: where the table ends is unknown.
                if program.file.executable(target) is not None and not _next_table(program, target):
                    return None
                break
        elif program.file.executable(target) is None:
            return None
        found[target] = None
    return list(found) or None


def _next_table(program: Program, target: Vaddr) -> bool:
    """Whether ``target`` belongs to another named function, so that the element is the next table's, not this one's."""
    owner = program.symbols.covering(target)
    return owner is not None and ".cold" not in owner.name
