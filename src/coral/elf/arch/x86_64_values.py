"""What x86-64 registers hold relative to a function's first instruction: an abstract interpretation of its instructions.

A ``State`` has sixteen registers in the order of their encoding and a seventeenth entry: the value that RSP was compared with
by the instruction just before (the loops of ``-fstack-clash-protection`` move RSP until it equals a known one). Whatever is
not understood makes the registers it writes unknown, never wrong: which registers those are comes from capstone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import capstone
from capstone import x86 as cs

from coral.elf.arch import Instruction, State, Value, ValueKind
from coral.model.addresses import Vaddr

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = range(16)
_COMPARED = 16
INITIAL: State = (*(Value(ValueKind.STACK, 0) if register == RSP else None for register in range(16)), None)

# System V psABI, figure 3.36: the register that each of DWARF's numbers means.
DWARF_NUMBERS = (RAX, RDX, RCX, RBX, RSI, RDI, RBP, RSP, R8, R9, R10, R11, R12, R13, R14, R15)

# System V psABI, figure 3.4: what a callee must restore. Go's ABIInternal (cmd/compile/abi-internal.md) has none but SP and
# the frame pointer.
_KEPT = frozenset((RBX, RSP, RBP, R12, R13, R14, R15))
_KEPT_GO = frozenset((RSP, RBP))
_ARGUMENTS = frozenset((RDI, RSI, RDX, RCX, R8, R9))
_ARGUMENTS_GO = frozenset((RAX, RBX, RCX, RDI, RSI, R8, R9, R10, R11, R14))

_decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
_decoder.detail = True

_NAMES = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
NUMBERS: dict[int, int] = {}
for _number in range(16):
    if _number < 8:
        _stem = _NAMES[_number]
        _aliases = [f"R{_stem}", f"E{_stem}", _stem, f"{_stem}L" if _number >= 4 else f"{_stem[0]}L"]
        if _number < 4:
            _aliases.append(f"{_stem[0]}H")
    else:
        _aliases = [f"R{_number}", f"R{_number}D", f"R{_number}W", f"R{_number}B"]
    for _alias in _aliases:
        NUMBERS[getattr(cs, f"X86_REG_{_alias.upper()}")] = _number

_WIDE = frozenset(getattr(cs, f"X86_REG_{name}") for name in ("RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI"))
_WIDE |= frozenset(getattr(cs, f"X86_REG_R{number}") for number in range(8, 16))


class _Effect(NamedTuple):
    """What an instruction does to the registers, apart from where it stands.

    Attributes:
        written: Registers that it writes.
        compute: Given the state before and the address after it, the registers that stay known; None when none does.
        compared: The register that it compares RSP with; -1 when it does not.
    """

    written: tuple[int, ...]
    compute: Callable[[State, int], dict[int, Value | None]] | None = None
    compared: int = -1


_NOTHING = _Effect(())
_effects: dict[bytes, _Effect] = {}
_EFFECTS_LIMIT = 200_000


def apply(instruction: Instruction, state: State) -> State:
    """The state after an instruction that goes on with the next one."""
    effect = _effect(instruction)
    if effect is _NOTHING:
        return state if state[_COMPARED] is None else (*state[:_COMPARED], None)
    result = list(state)
    result[_COMPARED] = state[effect.compared] if effect.compared >= 0 else None
    for register in effect.written:
        result[register] = None
    if effect.compute is not None:
        for register, value in effect.compute(state, instruction.end).items():
            result[register] = value
    return tuple(result)


def after_call(state: State, *, go: bool) -> State:
    """The state after a callee returned: it restored what its calling convention says, nothing else is known."""
    kept = _KEPT_GO if go else _KEPT
    return (*(value if register in kept else None for register, value in enumerate(state[:_COMPARED])), None)


def after_branch(state: State, *, equal: bool) -> State:
    """The state after a conditional jump went the way that means "equal" to the comparison before it, or another way."""
    known = state[_COMPARED]
    if known is None:
        return state
    result = list(state)
    result[_COMPARED] = None
    if equal:
        result[RSP] = known
    return tuple(result)


def stack(state: State) -> int | None:
    """RSP's distance from its value at the function's first instruction, in bytes; None when unknown."""
    value = state[RSP]
    return value.number if value is not None and value.kind is ValueKind.STACK else None


def with_stack(state: State, depth: int | None) -> State:
    """The state with another value in RSP: a distance from that at the function's first instruction, or None for unknown."""
    result = list(state)
    result[RSP] = Value(ValueKind.STACK, depth) if depth is not None else None
    return tuple(result)


def distance(state: State, register: int) -> int | None:
    """Of a register, by DWARF's number, from RSP at the function's first instruction, in bytes; None when unknown."""
    value = state[DWARF_NUMBERS[register]] if 0 <= register < len(DWARF_NUMBERS) else None
    return value.number if value is not None and value.kind is ValueKind.STACK else None


def written(instruction: Instruction) -> tuple[int, ...]:
    """The registers that an instruction writes."""
    return _effect(instruction).written


def writes_arguments(instruction: Instruction, *, go: bool) -> bool:
    """Whether an argument register (in Go also R14, the goroutine) is overwritten."""
    arguments = _ARGUMENTS_GO if go else _ARGUMENTS
    return any(register in arguments for register in _effect(instruction).written)


def is_no_operation(instruction: Instruction) -> bool:
    """Whether it is a multi-byte filler: ``lea 0(%rsi),%rsi``, ``xchg %ax,%ax``, ``add %al,(%rax)`` of zero bytes."""
    if not any(instruction.code):
        return True
    raw = detail(instruction)
    operands = raw.operands
    if len(operands) != 2 or operands[0].type != cs.X86_OP_REG:
        return False
    if operands[1].type == cs.X86_OP_REG:
        return raw.id in (cs.X86_INS_MOV, cs.X86_INS_XCHG) and bool(operands[0].reg == operands[1].reg)
    memory = operands[1].mem
    return bool(
        raw.id == cs.X86_INS_LEA
        and memory.base == operands[0].reg
        and memory.index in (0, cs.X86_REG_RIZ)
        and not memory.disp
    )


def jump_operand(instruction: Instruction, state: State) -> tuple[Value | None, Vaddr | None]:
    """Of an indirect jump: what is known of its target, and the memory slot it reads when that has a fixed address."""
    operand = detail(instruction).operands[0]
    if operand.type == cs.X86_OP_REG:
        return state[NUMBERS[operand.reg]], None
    memory = operand.mem
    if memory.base == cs.X86_REG_RIP:
        return None, Vaddr(instruction.end + memory.disp)
    return _element(memory, state, 8, ValueKind.POINTER), None


def detail(instruction: Instruction) -> Any:
    """The instruction as capstone takes it apart."""
    return next(_decoder.disasm(instruction.code, instruction.address, 1))


def _effect(instruction: Instruction) -> _Effect:
    code = instruction.code
    found = _effects.get(code)
    if found is None:
        if len(_effects) > _EFFECTS_LIMIT:
            _effects.clear()
        alike = _alike(code)
        found = _effects.get(alike)
        if found is None:
            found = _effects[alike] = _understand(detail(instruction))
        _effects[code] = found
    return found


# Opcodes with a ModRM byte of which the registers that they name decide the effect, when the other operand is memory: integer
# arithmetic, test, xchg, mov, movsxd, and their forms with an immediate; behind 0f: moves of vectors, cmovcc, movzx, movsx.
_ADDRESSED = frozenset(
    (*(opcode for opcode in range(0x40) if opcode & 7 < 4), 0x63, 0x80, 0x81, 0x83, *range(0x84, 0x8C), 0xC6, 0xC7)
)
_ADDRESSED_0F = frozenset((0x10, 0x11, 0x28, 0x29, *range(0x40, 0x50), 0x6F, 0x7F, 0xB6, 0xB7, 0xBE, 0xBF))
_LEGACY_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")


def _alike(code: bytes) -> bytes:
    """What stands for all encodings that differ from this one in how far memory is from a register, or in what is put there.

    Taking an encoding apart with capstone is what the analysis of a function would otherwise do most. Whether the distance is
    0 is kept, and so is everything about memory with an index: that may be an element of a jump table.
    """
    at = 0
    while at < len(code) - 1 and code[at] in _LEGACY_PREFIXES:
        at += 1
    at += code[at] & 0xF0 == 0x40
    opcodes = _ADDRESSED
    if code[at : at + 1] == b"\x0f":
        opcodes = _ADDRESSED_0F
        at += 1
    if at + 1 >= len(code) or code[at] not in opcodes:
        return code
    mod, base = code[at + 1] >> 6, code[at + 1] & 7
    at += 2
    if mod == 3:
        return code
    if base == 4:
        if at >= len(code) or code[at] >> 3 & 7 != 4 or not mod:
            return code
        at += 1
    size = (4 if base == 5 else 0, 1, 4)[mod]
    if not size:
        return code
    return code[:at] + (b"\1" if any(code[at : at + size]) else b"\0")


def _understand(raw: Any) -> _Effect:
    """The effect of one encoding."""
    _, writes = raw.regs_access()
    operands = raw.operands
    writes = {NUMBERS[register] for register in writes if register in NUMBERS}
    if raw.id in _UNREPORTED:
        writes |= _UNREPORTED[raw.id] | {NUMBERS[o.reg] for o in operands if o.type == cs.X86_OP_REG and o.reg in NUMBERS}
    written = tuple(sorted(writes))
    handler = _HANDLERS.get(raw.id)
    if handler is not None:
        effect = handler(raw, operands, written)
        if effect is not None:
            return effect
    return _Effect(written) if written else _NOTHING


def _register(operand: Any) -> int:
    """The number of a full 64-bit register operand; -1 for anything else."""
    if operand.type != cs.X86_OP_REG or operand.reg not in _WIDE:
        return -1
    return NUMBERS[operand.reg]


def _moved(value: Value | None, by: int) -> Value | None:
    """A value plus a constant, where that is still known."""
    if value is not None and value.kind in (ValueKind.STACK, ValueKind.CONSTANT):
        return Value(value.kind, value.number + by)
    return None


def _element(memory: Any, state: State, size: int, kind: ValueKind) -> Value | None:
    """The element of ``size`` bytes that a memory operand reads, when the table is at a known address."""
    if memory.index == 0 or memory.segment:
        return None
    base = state[NUMBERS[memory.base]] if memory.base in NUMBERS else None
    if memory.scale == size:
        if memory.base == 0:
            return Value(kind, memory.disp) if memory.disp > 0 else None
        return Value(kind, base.number + memory.disp) if base is not None and base.kind is ValueKind.CONSTANT else None
    # Unoptimized: the index was scaled before.
    index = state[NUMBERS[memory.index]] if memory.scale == 1 and memory.index in NUMBERS else None
    for table, scaled in ((base, index), (index, base)):
        if table is not None and table.kind is ValueKind.CONSTANT and scaled == Value(ValueKind.SCALED, size):
            return Value(kind, table.number + memory.disp)
    return None


def _push(raw: Any, operands: Any, written: tuple[int, ...]) -> _Effect | None:
    size = 8 if not operands or operands[0].size == 8 else 0
    if operands and operands[0].type == cs.X86_OP_IMM:
        size = 8
    if size != 8 or 0x66 in raw.prefix:
        return _Effect((RSP,))
    return _Effect((RSP,), lambda state, _: {RSP: _moved(state[RSP], -8)})


def _pop(raw: Any, operands: Any, written: tuple[int, ...]) -> _Effect | None:
    if 0x66 in raw.prefix:
        return _Effect((*written, RSP))
    target = _register(operands[0]) if operands else -1
    if target == RSP:
        return _Effect((RSP,))
    return _Effect((*written, RSP), lambda state, _: {RSP: _moved(state[RSP], 8)})


def _leave(raw: Any, operands: Any, written: tuple[int, ...]) -> _Effect | None:
    return _Effect((RSP, RBP), lambda state, _: {RSP: _moved(state[RBP], 8)})


def _mov(raw: Any, operands: Any, written: tuple[int, ...]) -> _Effect | None:
    target, source = operands
    if target.type != cs.X86_OP_REG:
        return None
    number = NUMBERS.get(target.reg, -1)
    if number < 0:
        return None
    if source.type == cs.X86_OP_REG and _register(target) >= 0 and _register(source) >= 0:
        origin = _register(source)
        return _Effect(written, lambda state, _: {number: state[origin]})
    if source.type == cs.X86_OP_IMM and target.size >= 4 and source.imm >= 0:
        constant = Value(ValueKind.CONSTANT, int(source.imm))
        return _Effect(written, lambda state, _: {number: constant})
    if source.type == cs.X86_OP_MEM and source.mem.index and target.size in (4, 8):
        memory = source.mem
        size = int(target.size)
        kind = ValueKind.POINTER if size == 8 else ValueKind.RAW_OFFSET
        return _Effect(written, lambda state, _: {number: _element(memory, state, size, kind)})
    if source.type == cs.X86_OP_MEM and target.size == 8 and source.mem.base in _WIDE and not source.mem.disp:
        place = NUMBERS[source.mem.base]
        return None if source.mem.segment else _Effect(written, lambda state, _: {number: _read(state[place])})
    return None


def _read(place: Value | None) -> Value | None:
    """What is in memory at a known place."""
    return Value(ValueKind.POINTER, place.number) if place is not None and place.kind is ValueKind.PLACE else None


def _shift(raw: Any, operands: Any, written: tuple[int, ...]) -> _Effect | None:
    number = _register(operands[0])
    if number < 0 or operands[1].type != cs.X86_OP_IMM or operands[1].imm not in (2, 3):
        return None
    scaled = Value(ValueKind.SCALED, 1 << operands[1].imm)
    return _Effect(written, lambda state, _: {number: scaled})


def _sign_extend(raw: Any, operands: Any, written: tuple[int, ...]) -> _Effect | None:
    if raw.id == cs.X86_INS_CDQE:
        number = origin = RAX
    else:
        target, source = operands
        number = _register(target)
        if number < 0 or source.size != 4:
            return None
        if source.type == cs.X86_OP_MEM:
            memory = source.mem
            return _Effect(written, lambda state, _: {number: _element(memory, state, 4, ValueKind.OFFSET)})
        origin = NUMBERS.get(source.reg, -1)
        if origin < 0:
            return None

    def extended(state: State, _: int) -> dict[int, Value | None]:
        value = state[origin]
        if value is None or value.kind is not ValueKind.RAW_OFFSET:
            return {}
        return {number: Value(ValueKind.OFFSET, value.number)}

    return _Effect(written, extended)


def _lea(raw: Any, operands: Any, written: tuple[int, ...]) -> _Effect | None:
    number = _register(operands[0])
    memory = operands[1].mem
    if number >= 0 and memory.index not in (0, cs.X86_REG_RIZ) and not memory.base and not memory.disp:
        scaled = Value(ValueKind.SCALED, int(memory.scale))
        return _Effect(written, lambda state, _: {number: scaled})
    if number < 0 or memory.index not in (0, cs.X86_REG_RIZ):
        return None
    displacement = int(memory.disp)
    if memory.base == cs.X86_REG_RIP:
        return _Effect(written, lambda state, end: {number: Value(ValueKind.CONSTANT, end + displacement)})
    base = NUMBERS.get(memory.base, -1)
    if base < 0 or memory.base not in _WIDE:
        return None
    return _Effect(written, lambda state, _: {number: _moved(state[base], displacement)})


def _add(raw: Any, operands: Any, written: tuple[int, ...]) -> _Effect | None:
    number = _register(operands[0])
    sign = -1 if raw.id == cs.X86_INS_SUB else 1
    if number < 0:
        return None
    if operands[1].type == cs.X86_OP_IMM:
        amount = sign * int(operands[1].imm)
        return _Effect(written, lambda state, _: {number: _plus(state[number], amount)})
    other = _register(operands[1])
    if other < 0:
        return None
    return _Effect(written, lambda state, _: {number: _sum(state[number], state[other], sign)})


def _plus(value: Value | None, amount: int) -> Value | None:
    """A value plus a constant, which may be the address of a table that the value is a scaled index of."""
    if value == Value(ValueKind.SCALED, 8) and amount > 0:
        return Value(ValueKind.PLACE, amount)
    return _moved(value, amount)


def _sum(left: Value | None, right: Value | None, sign: int) -> Value | None:
    if left is None or right is None:
        return None
    if right.kind is ValueKind.CONSTANT and left.kind in (ValueKind.STACK, ValueKind.CONSTANT):
        return _moved(left, sign * right.number)
    if sign < 0:
        return None
    kinds = {left.kind, right.kind}
    if kinds == {ValueKind.OFFSET, ValueKind.CONSTANT} and left.number == right.number:
        return Value(ValueKind.RELATIVE_TARGET, left.number)
    return None


def _compare(raw: Any, operands: Any, written: tuple[int, ...]) -> _Effect | None:
    left, right = _register(operands[0]), _register(operands[1])
    if left == RSP and right >= 0:
        return _Effect((), None, right)
    if right == RSP and left >= 0:
        return _Effect((), None, left)
    return None


# What capstone 5 does not report as written, seen by going through the instructions that write registers implicitly.
_UNREPORTED = {
    cs.X86_INS_ENTER: {RSP, RBP},
    cs.X86_INS_SYSCALL: {RCX, R11},
    cs.X86_INS_CMPXCHG: {RAX},
    cs.X86_INS_XLATB: {RAX},
    cs.X86_INS_MULX: set(),
    cs.X86_INS_RDSSPD: set(),
    cs.X86_INS_RDSSPQ: set(),
}

_HANDLERS: dict[int, Callable[[Any, Any, tuple[int, ...]], _Effect | None]] = {
    cs.X86_INS_PUSH: _push,
    cs.X86_INS_PUSHFQ: _push,
    cs.X86_INS_POP: _pop,
    cs.X86_INS_POPFQ: _pop,
    cs.X86_INS_LEAVE: _leave,
    cs.X86_INS_MOV: _mov,
    cs.X86_INS_MOVABS: _mov,
    cs.X86_INS_MOVSXD: _sign_extend,
    cs.X86_INS_CDQE: _sign_extend,
    cs.X86_INS_LEA: _lea,
    cs.X86_INS_ADD: _add,
    cs.X86_INS_SUB: _add,
    cs.X86_INS_CMP: _compare,
    cs.X86_INS_SHL: _shift,
}
