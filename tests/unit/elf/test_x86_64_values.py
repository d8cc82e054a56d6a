"""What an instruction does to the registers is remembered for all encodings that are alike, and is never another's."""

from __future__ import annotations

from pathlib import Path

from support import elf_images

from coral.elf.arch import State, Value, ValueKind
from coral.elf.arch import x86_64_values as values

_LIBC = (Path("/lib/x86_64-linux-gnu/libc.so.6"), Path("/lib64/libc.so.6"), Path("/usr/lib/libc.so.6"))
# Every register holds something else, so that an effect taken from another encoding shows.
_STATES: tuple[State, ...] = (
    (*(Value(ValueKind.STACK, 8 * register) for register in range(16)), Value(ValueKind.STACK, -8)),
    (*(Value(ValueKind.PLACE, 0x1000 + register) for register in range(16)), None),
    (*(Value(ValueKind.CONSTANT, 0x2000 + register) for register in range(16)), Value(ValueKind.STACK, -8)),
    (*(Value(ValueKind.SCALED, 8) for _ in range(16)), None),
)


def test_encodings_that_are_alike_have_one_effect() -> None:
    """What is remembered for an encoding is what it does, for every 5th instruction of a part of the C library."""
    program = elf_images.program(next(path for path in _LIBC if path.exists()))
    (segment,) = program.file.executable_segments
    at, seen, shared = segment.vaddr, 0, 0
    end = segment.vaddr + min(segment.file_size_bytes, 300_000)
    while at < end:
        row = program.decode(at, end - at)
        for instruction in row[::5]:
            alone = values._understand(values.detail(instruction))
            remembered = values._effect(instruction)
            assert remembered.written == alone.written, instruction
            assert remembered.compared == alone.compared, instruction
            for state in _STATES:
                results = [effect.compute(state, instruction.end) if effect.compute else {} for effect in (remembered, alone)]
                assert results[0] == results[1], instruction
            seen += 1
            shared += values._alike(instruction.code) != instruction.code
        at = row[-1].end if row else at + 1
    assert seen > 5_000
    assert shared > 1_000
