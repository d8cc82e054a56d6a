"""x86-64 instructions: how they decode, where they go, and what a uprobe on them costs or why it is refused.

Capstone gives boundaries and text; flow and probe rules are read from the bytes after the prefixes, because they are those of
the kernel's own decoder (arch/x86/kernel/uprobes.c), which looks at prefixes and opcode bytes only. Encodings are from the
Intel SDM, volume 2, chapter 2 (prefixes, REX, VEX, EVEX) and appendix A (opcode maps).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import capstone

from coral.elf.arch import Flow, Instruction, State, Value
from coral.elf.arch import x86_64_bounds as bounds
from coral.elf.arch import x86_64_values as values
from coral.model.addresses import Vaddr

_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
_REFUSED_PREFIXES = {
    0xF0: "a lock prefix",
    0x26: "an es prefix",
    0x2E: "a cs prefix",
    0x36: "an ss prefix",
    0x3E: "a ds prefix",
}

# good_insns_64 of arch/x86/kernel/uprobes.c, inverted, together with what its older versions refused. For VEX instructions
# the kernel looks up the opcode byte behind the VEX prefix in this same table, so a vmovdqa load (6f) counts as "outs".
_REFUSED_OPCODES = frozenset(
    bytes.fromhex("06070e16171e1f272f373f606162 6c6d6e6f 829a cccdcecf d4d5d6 e4e5e6e7 eaecedeeef f0f1f4fafb")
)
# good_2byte_insns of the same file, inverted.
_REFUSED_OPCODES_0F = frozenset(bytes.fromhex("0001 0506070809 0b 30343537 7879 ae"))

# Linux 6.18 replaces the trap on a nop of this length, once hit, by a call to a page that it maps for the purpose. That page
# is not copied on fork (VM_DONTCOPY in create_uprobe_trampoline of the same file) while the call is: seen to kill children.
_OPTIMIZED_BYTES = 5

_ENCODINGS = 1 << 16  # that are remembered: most instructions of a program are one of few
_MASK = (1 << 64) - 1

# Of VEX instructions the kernel looks at the opcode behind the prefix (branch_setup_xol_ops of the same file) and takes these
# for jumps, nops and calls that it emulates: seen to leave out a vmovq (7e, "jle"), so that a program computed other results.
_MISTAKEN_OPCODES_VEX = frozenset((*range(0x70, 0x80), 0x90, 0xE8, 0xE9, 0xEB))

_decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)


class _Shape(NamedTuple):
    """An encoding taken apart: prefixes, REX (0 when absent), opcode map (0, 0x0F, or the VEX/EVEX byte), opcode, rest."""

    prefixes: bytes
    rex: int
    map: int
    opcode: int
    rest: bytes


def _shape(code: bytes) -> _Shape:
    at = 0
    while at < len(code) - 1 and code[at] in _PREFIXES:
        at += 1
    prefixes = code[:at]
    rex = 0
    if code[at] & 0xF0 == 0x40 and at + 1 < len(code):
        rex = code[at]
        at += 1
    first = code[at]
    if first == 0x0F and at + 1 < len(code):
        return _Shape(prefixes, rex, 0x0F, code[at + 1], code[at + 2 :])
    if first in (0xC4, 0xC5, 0x62) and len(code) > at + 2:
        skip = {0xC5: 2, 0xC4: 3, 0x62: 4}[first]
        if len(code) > at + skip:
            return _Shape(prefixes, rex, first, code[at + skip], code[at + skip + 1 :])
    return _Shape(prefixes, rex, 0, first, code[at + 1 :])


def _distance(code: bytes, size: int) -> int:
    return len(code) + int.from_bytes(code[-size:], "little", signed=True)


@functools.lru_cache(_ENCODINGS)
def _flow(code: bytes) -> tuple[Flow, int | None, int]:
    """What an encoding does to the flow, how far its target is from its own first byte, and its condition."""
    shape = _shape(code)
    opcode = shape.opcode
    if shape.map == 0x0F:
        if 0x80 <= opcode <= 0x8F:
            if 0x66 in shape.prefixes and not shape.rex & 8:
                return Flow.FOREIGN, None, -1
            return Flow.BRANCH, _distance(code, 4), opcode & 15
        if opcode in (0x0B, 0xFF, 0xB9):
            return Flow.STOP, None, -1
        return (Flow.FOREIGN if opcode in (0x07, 0x34, 0x35) else Flow.NEXT), None, -1  # sysret, sysenter, sysexit
    if shape.map:
        return Flow.NEXT, None, -1
    if opcode in (0xE8, 0xE9, 0xEB) or 0x70 <= opcode <= 0x7F:
        # Intel ignores 66 on near branches, AMD cuts the target to 16 bits; compilers emit it with REX.W only (TLS calls).
        if 0x66 in shape.prefixes and not shape.rex & 8:
            return Flow.FOREIGN, None, -1
        if opcode == 0xE8:
            return Flow.CALL, _distance(code, 4), -1
        if opcode == 0xE9:
            return Flow.JUMP, _distance(code, 4), -1
        if opcode == 0xEB:
            return Flow.JUMP, _distance(code, 1), -1
        return Flow.BRANCH, _distance(code, 1), opcode & 15
    if 0xE0 <= opcode <= 0xE3:
        return Flow.LOOP, _distance(code, 1), -1
    if opcode in (0xC3, 0xC2):
        return Flow.RETURN, None, -1
    if opcode in (0xF4, 0xCC):
        return Flow.STOP, None, -1
    if opcode in (0xCA, 0xCB, 0xCF) or (opcode == 0xC7 and shape.rest[:1] == b"\xf8"):
        return Flow.FOREIGN, None, -1
    if opcode == 0xFF and shape.rest:
        group = shape.rest[0] >> 3 & 7
        return {2: Flow.CALL, 3: Flow.FOREIGN, 4: Flow.INDIRECT, 5: Flow.FOREIGN}.get(group, Flow.NEXT), None, -1
    return Flow.NEXT, None, -1


def _is_nop(shape: _Shape) -> bool:
    return (shape.map == 0 and shape.opcode == 0x90 and not shape.rex & 1) or (shape.map == 0x0F and shape.opcode == 0x1F)


class X8664:
    """The ``Architecture`` of x86-64 with the System V and the Go register calling conventions."""

    initial: State = values.INITIAL
    frame_bytes = 8  # the return address
    frame_stack_register = values.DWARF_NUMBERS.index(values.RSP)

    def decode(self, code: bytes, address: Vaddr, count: int = 0) -> list[Instruction]:
        """See ``Architecture``."""
        found = []
        at = 0
        for start, size, mnemonic, _ in _decoder.disasm_lite(code, address, count):
            raw = code[at : at + size]
            at += size
            flow, distance, condition = _flow(raw)
            target = None if distance is None else Vaddr((start + distance) & _MASK)
            found.append(Instruction(start, start + size, raw, mnemonic, flow, target, condition))
        return found

    def after(self, instruction: Instruction, state: State, *, go: bool) -> State:
        """See ``Architecture``."""
        if instruction.flow is Flow.CALL:
            return values.after_call(state, go=go)
        return values.apply(instruction, state)

    def after_call(self, state: State, *, go: bool) -> State:
        """See ``Architecture``."""
        return values.after_call(state, go=go)

    def taken(self, instruction: Instruction, state: State, *, jumped: bool) -> State:
        """See ``Architecture``."""
        return values.after_branch(state, equal=instruction.condition == 4 if jumped else instruction.condition == 5)

    def stack(self, state: State) -> int | None:
        """See ``Architecture``."""
        return values.stack(state)

    def with_stack(self, state: State, depth: int | None) -> State:
        """See ``Architecture``."""
        return values.with_stack(state, depth)

    def frame_register(self, state: State, register: int) -> int | None:
        """See ``Architecture``."""
        return values.distance(state, register)

    def jump_operand(self, instruction: Instruction, state: State) -> tuple[Value | None, Vaddr | None]:
        """See ``Architecture``."""
        return values.jump_operand(instruction, state)

    def bound(self, path: list[tuple[Instruction, bool]]) -> int | None:
        """See ``Architecture``."""
        return bounds.bound(path)

    def writes_arguments(self, instruction: Instruction, *, go: bool) -> bool:
        """See ``Architecture``."""
        return values.writes_arguments(instruction, go=go)

    def refusal(self, instruction: Instruction) -> str:
        """See ``Architecture``; the rules are ``uprobe_init_insn`` and ``branch_setup_xol_ops`` of the kernel file above.

        A nop of 5 bytes is accepted there, but not here: see ``_OPTIMIZED_BYTES``.
        """
        shape = _shape(instruction.code)
        for prefix in shape.prefixes:
            if prefix in _REFUSED_PREFIXES:
                return f"the kernel refuses probes on instructions with {_REFUSED_PREFIXES[prefix]}"
        if shape.map == 0x62:
            return "the kernel refuses probes on AVX-512 (EVEX) instructions"
        if shape.map in (0xC4, 0xC5) and shape.opcode in _MISTAKEN_OPCODES_VEX:
            return f"the kernel takes {instruction.mnemonic} ({instruction.code.hex()}) for a jump and would not execute it"
        if shape.map == 0 and shape.opcode == 0x90 and shape.rex & 1:
            return f"the kernel takes {instruction.mnemonic} ({instruction.code.hex()}) for a nop and would not execute it"
        refused = shape.opcode in (_REFUSED_OPCODES_0F if shape.map == 0x0F else _REFUSED_OPCODES)
        branches = instruction.flow in (Flow.CALL, Flow.JUMP, Flow.BRANCH) and instruction.target is not None
        if refused or (branches and 0x66 in shape.prefixes) or instruction.flow is Flow.FOREIGN:
            return f"the kernel refuses probes on {instruction.mnemonic} ({instruction.code.hex()})"
        if _is_nop(shape) and len(instruction.code) == _OPTIMIZED_BYTES:
            return "the kernel may turn a probe on a nop of 5 bytes into a call that forked children cannot make"
        return ""

    def emulated(self, instruction: Instruction) -> bool:
        """See ``Architecture``: push of a register, nop, direct jumps and calls (``*_setup_xol_ops`` of the same file)."""
        if self.refusal(instruction):
            return False
        shape = _shape(instruction.code)
        if shape.map == 0 and 0x50 <= shape.opcode <= 0x57:
            return not shape.prefixes and shape.rex in (0, 0x41)
        if instruction.flow in (Flow.CALL, Flow.JUMP, Flow.BRANCH):
            return instruction.target is not None
        return _is_nop(shape) and not (shape.map and shape.prefixes)

    def is_padding(self, instruction: Instruction) -> bool:
        """See ``Architecture``."""
        shape = _shape(instruction.code)
        if shape.map == 0x0F:
            return shape.opcode == 0x1F
        return shape.map == 0 and (
            shape.opcode in (0x90, 0xCC)
            or (instruction.mnemonic in ("lea", "mov", "xchg", "add") and values.is_no_operation(instruction))
        )
