"""Go's tables of values by program counter, written by hand after runtime/symtab.go."""

from __future__ import annotations

from coral.elf.gopcvalue import size_bytes, steps


def test_values_change_by_zigzag_and_hold_for_a_length() -> None:
    """From -1: up by 1 for 5 bytes, up by 8 for 300, down by 8 for 1; then a change of 0 ends it."""
    data = bytes((2, 5, 16, 0xAC, 2, 15, 1, 0, 99, 99))
    assert list(steps(b"\xff" + data, 1)) == [(0, 5), (8, 305), (0, 306)]
    assert size_bytes(data, 0) == 306


def test_the_first_change_may_be_none() -> None:
    """A function whose value is -1 from its first instruction on begins with a change of 0."""
    assert list(steps(bytes((0, 7, 2, 3, 0)), 0)) == [(-1, 7), (0, 10)]


def test_a_damaged_table_ends() -> None:
    """What lies behind the data is nothing, and a length of 0 or a number that never ends is the end."""
    assert list(steps(b"", 0)) == []
    assert list(steps(b"\x02", 0)) == []
    assert list(steps(b"\x02\x05", 10)) == []
    assert list(steps(b"\x80" * 64, 0)) == []
    assert list(steps(b"\x02\x00" * 64, 0)) == []
