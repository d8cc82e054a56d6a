"""How long a jump table is, from the check of its index on the way to the jump."""

from __future__ import annotations

from typing import Any

from capstone import x86 as cs

from coral.elf.arch import Flow, Instruction
from coral.elf.arch import x86_64_values as values

_LARGEST_TABLE = 65_536
_COPIES = frozenset((cs.X86_INS_MOV, cs.X86_INS_MOVZX, cs.X86_INS_MOVSXD))


def bound(path: list[tuple[Instruction, bool]]) -> int | None:
    """How many elements a jump table has, read from the check of its index: ``cmp $n,x; ja default`` or ``and $mask,x``.

    Args:
        path: The jump and the instructions before it, backwards, each with whether it was left by jumping.
    """
    index: set[object] = set()
    extra: int | None = None
    checked: dict[object, int] = {}  # places that were compared, not known yet to hold the index, with what that would mean
    for instruction, jumped in path:
        if instruction.flow is Flow.BRANCH:
            # What is known on this way: not above, below or equal: n + 1 elements; below: n.
            extra = ({6: 1, 2: 0} if jumped else {7: 1, 3: 0}).get(instruction.condition)
            continue
        if instruction.flow is Flow.CALL:
            return None
        if instruction.flow not in (Flow.NEXT, Flow.INDIRECT):
            continue
        raw = values.detail(instruction)
        operands = raw.operands
        if not index:
            index = _indices(operands)
            continue
        if raw.id == cs.X86_INS_SHL and _place(operands[0]) in index:
            continue  # where the load does not scale the index itself
        compared: dict[object, int] = {}
        # A subtraction, of which only the flags are used, is clang's comparison without optimization.
        if raw.id in (cs.X86_INS_CMP, cs.X86_INS_SUB) and extra is not None:
            number = int(operands[1].imm) + extra if operands[1].type == cs.X86_OP_IMM else -1
            extra = None
            if 0 <= number < _LARGEST_TABLE:
                compared[_place(operands[0])] = number
            if raw.id == cs.X86_INS_CMP and _place(operands[0]) in index:
                return number if compared else None
        if len(operands) == 2 and raw.id in _COPIES:
            target, source = _place(operands[0]), _place(operands[1])
            if target in index:
                if source in checked:
                    return checked[source]
                index = index - {target} | {source}
                continue
            if source in index and target in checked:
                return checked[target]
        if raw.id == cs.X86_INS_AND and _place(operands[0]) in index and operands[1].type == cs.X86_OP_IMM:
            number = int(operands[1].imm)
            return number + 1 if 0 < number < _LARGEST_TABLE and not number & (number + 1) else None
        written = set(values.written(instruction))
        index -= written
        changed = {*written, *(_place(o) for o in operands[:1] if o.type == cs.X86_OP_MEM)}
        checked = {**{place: number for place, number in checked.items() if place not in changed}, **compared}
        if not index:
            return None
    return None


def _indices(operands: Any) -> set[object]:
    """The registers that may hold the index in a load from a table."""
    for operand in operands:
        if operand.type == cs.X86_OP_MEM and operand.mem.index and operand.mem.scale in (1, 4, 8):
            registers = (operand.mem.index,) if operand.mem.scale > 1 else (operand.mem.index, operand.mem.base)
            return {values.NUMBERS[register] for register in registers if register in values.NUMBERS}
    return set()


def _place(operand: Any) -> object:
    """What an operand names, so that two of them can be compared: a register's number, or how memory is addressed."""
    if operand.type == cs.X86_OP_REG:
        return values.NUMBERS.get(operand.reg)
    if operand.type == cs.X86_OP_MEM:
        memory = operand.mem
        return (memory.segment, memory.base, memory.index, memory.scale, memory.disp)
    return None
