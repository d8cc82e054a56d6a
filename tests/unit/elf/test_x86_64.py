"""Single instructions: where they go, what probes on them cost, what they do to the registers."""

from __future__ import annotations

import pytest

from coral.elf.arch import Flow, Value, ValueKind
from coral.elf.arch.x86_64 import X8664
from coral.elf.arch.x86_64_values import R10, RAX, RBP, RDX

_ARCH = X8664()


@pytest.mark.parametrize(
    ("code", "flow", "target", "condition"),
    [
        ("c3", Flow.RETURN, None, -1),
        ("f3c3", Flow.RETURN, None, -1),
        ("f2c3", Flow.RETURN, None, -1),
        ("c20800", Flow.RETURN, None, -1),
        ("eb10", Flow.JUMP, 0x1012, -1),
        ("e9fbffffff", Flow.JUMP, 0x1000, -1),
        ("f2e9faffffff", Flow.JUMP, 0x1000, -1),
        ("7710", Flow.BRANCH, 0x1012, 7),
        ("0f84fbffffff", Flow.BRANCH, 0x1001, 4),
        ("3e7410", Flow.BRANCH, 0x1013, 4),
        ("e310", Flow.LOOP, 0x1012, -1),
        ("67e310", Flow.LOOP, 0x1013, -1),
        ("e800000000", Flow.CALL, 0x1005, -1),
        ("66664 8e800000000".replace(" ", ""), Flow.CALL, 0x1008, -1),
        ("66e900000000", Flow.FOREIGN, None, -1),
        ("ff10", Flow.CALL, None, -1),
        ("ffe0", Flow.INDIRECT, None, -1),
        ("3effe0", Flow.INDIRECT, None, -1),
        ("41ffe3", Flow.INDIRECT, None, -1),
        ("ff2500000000", Flow.INDIRECT, None, -1),
        ("ff28", Flow.FOREIGN, None, -1),
        ("48ff28", Flow.FOREIGN, None, -1),
        ("cb", Flow.FOREIGN, None, -1),
        ("48cf", Flow.FOREIGN, None, -1),
        ("c7f800000000", Flow.FOREIGN, None, -1),
        ("0f0b", Flow.STOP, None, -1),
        ("cc", Flow.STOP, None, -1),
        ("0f05", Flow.NEXT, None, -1),
        ("c5f877", Flow.NEXT, None, -1),
        ("f30f1efa", Flow.NEXT, None, -1),
        ("ff30", Flow.NEXT, None, -1),
    ],
)
def test_flow(code: str, flow: Flow, target: int | None, condition: int) -> None:
    """Each encoding goes where the manual says."""
    (instruction,) = _ARCH.decode(bytes.fromhex(code), 0x1000)
    assert (instruction.flow, instruction.target, instruction.condition) == (flow, target, condition)
    assert instruction.end == 0x1000 + len(bytes.fromhex(code))


@pytest.mark.parametrize(
    "code", ["55", "4154", "90", "6690", "f390", "0f1f4000", "eb00", "7400", "0f8400000000", "e800000000"]
)
def test_emulated(code: str) -> None:
    """Pushes, nops and direct jumps are emulated under a probe."""
    (instruction,) = _ARCH.decode(bytes.fromhex(code), 0x1000)
    assert (_ARCH.emulated(instruction), _ARCH.refusal(instruction)) == (True, "")


@pytest.mark.parametrize("code", ["c3", "f30f1efa", "4889e5", "ff30", "ffe0", "ff10", "6655", "4955", "6a00"])
def test_stepped(code: str) -> None:
    """All else that the kernel accepts is executed out of line."""
    (instruction,) = _ARCH.decode(bytes.fromhex(code), 0x1000)
    assert (_ARCH.emulated(instruction), _ARCH.refusal(instruction)) == (False, "")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("f0ff07", "a lock prefix"),
        ("3effe0", "a ds prefix"),
        ("662e0f1f840000000000", "a cs prefix"),
        ("62f17c4828c0", "EVEX"),
        ("c5fa6f07", "vmovdqu"),
        ("cc", "int3"),
        ("0f05", "syscall"),
        ("0f0b", "ud2"),
        ("f4", "hlt"),
        ("ec", "in"),
        ("cd80", "int"),
        ("66e900000000", "jmp"),
        ("48cf", "iretq"),
    ],
)
def test_refused(code: str, why: str) -> None:
    """What the kernel would refuse is known from the bytes."""
    (instruction,) = _ARCH.decode(bytes.fromhex(code), 0x1000)
    assert _ARCH.refusal(instruction).startswith("the kernel refuses probes on")
    assert why in _ARCH.refusal(instruction)


@pytest.mark.parametrize(
    "code", ["c4e1f97ec0", "c5f877", "c5f97fc1", "c5f9ebc1", "c5f9e8c1", "c4e27978c0", "c5f970c100", "4190", "4990"]
)
def test_what_the_kernel_would_leave_out_is_refused(code: str) -> None:
    """Behind a VEX prefix or REX.B, the opcodes of jumps, calls and nops mean something else, which the kernel overlooks."""
    (instruction,) = _ARCH.decode(bytes.fromhex(code), 0x1000)
    assert "would not execute it" in _ARCH.refusal(instruction)
    assert not _ARCH.emulated(instruction)


@pytest.mark.parametrize("code", ["0f1f440000", "6666666690"])
def test_nops_of_five_bytes_are_avoided(code: str) -> None:
    """Where newer kernels put a call instead of a trap, which children forked later cannot make, no probe goes."""
    (instruction,) = _ARCH.decode(bytes.fromhex(code), 0x1000)
    assert "forked children" in _ARCH.refusal(instruction)
    assert not _ARCH.emulated(instruction)


@pytest.mark.parametrize(
    ("code", "stack"),
    [
        ("55", -8),
        ("55 5d", 0),
        ("6a00", -8),
        ("ff30", -8),
        ("9c 9d", 0),
        ("6655", None),
        ("4883ec18", -24),
        ("4881ec00100000 4881c400100000", 0),
        ("488d6424f8", -8),
        ("55 4889e5 4883e4f0 c9", 0),
        ("55 4889e5 53 4829fc 488d65f8 5b 5d", 0),
        ("4883e4f0", None),
        ("4829fc", None),
        ("4c8d5424084883e4f0 4c89d4", 8),
        ("b800100000 4829c4", -4096),
        ("5c", None),
        ("c8100000", None),
        ("0fa0", None),
        ("669c", None),
        ("4887e0", None),
    ],
)
def test_stack(code: str, stack: int | None) -> None:
    """The distance of RSP from its value at the entry, or that it is not known."""
    state = _ARCH.initial
    for instruction in _ARCH.decode(bytes.fromhex(code), 0x1000):
        state = _ARCH.after(instruction, state, go=False)
    assert _ARCH.stack(state) == stack


def test_a_call_keeps_what_its_convention_keeps() -> None:
    """System V callees restore RBP and R12 to R15; Go's restore RBP only."""
    (save, call) = _ARCH.decode(bytes.fromhex("4989e4 e800000000"), 0x1000)
    state = _ARCH.after(save, _ARCH.initial, go=False)
    assert _ARCH.after(call, state, go=False)[12] == Value(ValueKind.STACK, 0)
    assert _ARCH.after(call, state, go=True)[12] is None
    assert _ARCH.stack(_ARCH.after(call, state, go=True)) == 0


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("488d15f90f0000 486304ba 4801d0", Value(ValueKind.RELATIVE_TARGET, 0x2000)),
        ("488d15f90f0000 8b04ba 4898 4801d0", Value(ValueKind.RELATIVE_TARGET, 0x2000)),
        ("488d14bd00000000 488d05f10f0000 8b0402 4898 488d15e50f0000 4801d0", Value(ValueKind.RELATIVE_TARGET, 0x2000)),
        ("488b04fd00204000", Value(ValueKind.POINTER, 0x402000)),
        ("488d15f90f0000 488b04fa", Value(ValueKind.POINTER, 0x2000)),
        ("488d15f90f0000 8b04ba 4801d0", None),
        ("488d15f90f0000 488d0df20f0000 486304ba 4801c8", Value(ValueKind.RELATIVE_TARGET, 0x2000)),
        ("488d15f90f0000 488d0d00000000 486304ba 4801c8", None),
    ],
)
def test_tables(code: str, value: Value | None) -> None:
    """What RAX holds before ``jmp *%rax``, in the shapes of GCC, clang and Go."""
    state = _ARCH.initial
    for instruction in _ARCH.decode(bytes.fromhex(code), 0x1000):
        state = _ARCH.after(instruction, state, go=False)
    assert state[RAX] == value


def test_registers_have_the_numbers_of_their_encoding() -> None:
    """The names that the tests use are those of the manual."""
    assert (RAX, RDX, RBP, R10) == (0, 2, 5, 10)
