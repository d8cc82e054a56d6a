"""Jump tables: where ``switch`` goes.

Two shapes, both of GCC and clang, one of them also Go's: elements of 32 bits, relative to the table (position independent C),
and elements of 64 bits that are addresses (the rest). Which table a jump reads is known from the registers. How long it is at
most is known from the check of its index and from where the next thing begins that code takes the address of, which may be
the next table; an element that cannot be a place in the function ends it too.
"""

from __future__ import annotations

from collections.abc import Callable

from coral.elf.arch import Value, ValueKind
from coral.elf.program import Program
from coral.model.addresses import Vaddr

_LIMIT = 65_536


def read(program: Program, table: Value, length: int | None, possible: Callable[[Vaddr], bool]) -> list[Vaddr]:
    """The places that a jump through ``table`` can go to.

    Args:
        program: The image.
        table: What the jump's register or memory operand is known to hold: ``RELATIVE_TARGET`` or ``POINTER``.
        length: How many elements there are at most; None when no check was found.
        possible: Whether a place can be one of the function's.

    Returns:
        The places, without repetition; none when it is not a jump table. There may be too many at the end, never too few.
    """
    size = 4 if table.kind is ValueKind.RELATIVE_TARGET else 8
    limit = _LIMIT if length is None else length
    behind = program.references.next_taken(table.number)
    if behind is not None:
        limit = min(limit, (behind - table.number) // size)
    found: dict[Vaddr, None] = {}
    for index in range(limit):
        where = table.number + index * size
        raw = program.file.read(where, size)
        if len(raw) < size:
            break
        if size == 4:
            target = Vaddr(table.number + int.from_bytes(raw, "little", signed=True))
        else:
            target = Vaddr(program.file.pointer(where))
        if not possible(target):
            break
        found[target] = None
    return list(found)
