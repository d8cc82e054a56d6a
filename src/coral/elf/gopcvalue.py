"""Go's tables of values by program counter: how deep the stack is, which inlined call an instruction is part of.

The encoding is that of ``step`` in runtime/symtab.go: pairs of variable-length integers, the change of a value, zig-zag
encoded (it begins at -1) and how many bytes of code it holds for; a change of 0 that is not the first one ends the table.
"""

from __future__ import annotations

from collections.abc import Iterator

_MOST_STEPS = 1 << 20
_MOST_BYTES = 5


def steps(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """The values of a table, each with the offset from the function's entry behind the code that it holds for.

    Args:
        data: What holds the table; where it ends, so does a damaged table.
        at: Where the table begins.
    """
    value, offset = -1, 0
    for index in range(_MOST_STEPS):
        change, at = _varint(data, at)
        if not change and index:
            return
        length, at = _varint(data, at)
        if not length:
            return
        value += -(change >> 1) - 1 if change & 1 else change >> 1
        offset += length
        yield value, offset


def size_bytes(data: bytes, at: int) -> int:
    """How much code a table describes; 0 when there is none."""
    return max((offset for _, offset in steps(data, at)), default=0)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[at : at + _MOST_BYTES]):
        value |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return value, at + index + 1
    return 0, at
