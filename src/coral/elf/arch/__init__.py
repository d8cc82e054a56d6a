"""The seam between what is the same for every processor and what is not.

``flow`` and ``sites`` speak in these values only; ``x86_64`` fills them in. A second processor is a second module here.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol

from coral.model.addresses import Vaddr


class Flow(enum.Enum):
    """What an instruction does to the flow of control."""

    NEXT = "next"
    """Goes on with the next instruction."""
    CALL = "call"
    """Calls, and goes on with the next instruction if the callee returns."""
    JUMP = "jump"
    """Always goes to ``target``."""
    BRANCH = "branch"
    """Goes to ``target`` if ``condition`` holds, else on."""
    LOOP = "loop"
    """Goes to ``target`` depending on a register, else on; its condition is not one that a probe program can decide."""
    INDIRECT = "indirect"
    """Goes where a register or memory says."""
    RETURN = "return"
    """Returns to the caller."""
    STOP = "stop"
    """Never goes on (ud2, hlt, int3)."""
    FOREIGN = "foreign"
    """Leaves in a way that is not followed here (far jumps, xbegin, iret)."""


class Instruction(NamedTuple):
    """One decoded instruction. A tuple, because an image has millions, and tuples are made and read quickest.

    Attributes:
        address: Where it is.
        end: Where the next instruction begins.
        code: Its bytes.
        mnemonic: For messages.
        flow: What it does to the flow of control.
        target: Where it jumps or what it calls, when the instruction says so itself.
        condition: Of a ``BRANCH``: the processor's condition code; -1 otherwise.
    """

    address: Vaddr
    end: Vaddr
    code: bytes
    mnemonic: str
    flow: Flow
    target: Vaddr | None = None
    condition: int = -1


class ValueKind(enum.IntEnum):
    """What is known of the content of a register."""

    STACK = 0
    """``number`` bytes above the stack pointer at the function's first instruction."""
    CONSTANT = 1
    """``number`` itself, an address of the file."""
    OFFSET = 2
    """A 32-bit element of the table at ``number``, sign-extended."""
    RAW_OFFSET = 3
    """The same, not sign-extended yet."""
    RELATIVE_TARGET = 4
    """``number`` plus an element of the table of 32-bit offsets that is there."""
    POINTER = 5
    """A 64-bit element of the table at ``number``."""
    SCALED = 6
    """``number`` times an index."""
    PLACE = 7
    """The address of a 64-bit element of the table at ``number``."""


class Value(NamedTuple):
    """A known content of a register."""

    kind: ValueKind
    number: int


State = tuple[Value | None, ...]
"""What is known before an instruction: one entry per register, then what the stack pointer was just compared with."""


class Architecture(Protocol):
    """What the analysis needs from a processor."""

    @property
    def initial(self) -> State:
        """What is known at a function's first instruction."""
        ...

    @property
    def frame_bytes(self) -> int:
        """How far the canonical frame address lies above the stack pointer at a function's first instruction."""
        ...

    @property
    def frame_stack_register(self) -> int:
        """DWARF's number of the stack pointer."""
        ...

    def decode(self, code: bytes, address: Vaddr, count: int = 0) -> list[Instruction]:
        """The instructions from ``address`` on, until ``code`` ends, ``count`` is reached or a byte does not decode."""
        ...

    def after(self, instruction: Instruction, state: State, *, go: bool) -> State:
        """What is known after ``instruction``, on the way to the next one (of a call: after the callee returned)."""
        ...

    def after_call(self, state: State, *, go: bool) -> State:
        """What is known where a callee returned to, or an exception landed, of what was known before."""
        ...

    def taken(self, instruction: Instruction, state: State, *, jumped: bool) -> State:
        """What is known after a conditional jump that jumped, or did not."""
        ...

    def stack(self, state: State) -> int | None:
        """The stack pointer's distance from its value at the first instruction, in bytes; None when unknown."""
        ...

    def with_stack(self, state: State, depth: int | None) -> State:
        """The same with the stack pointer at another distance from its value at the first instruction; None: not known."""
        ...

    def frame_register(self, state: State, register: int) -> int | None:
        """Distance of a register, by DWARF's number, from the stack pointer at the first instruction; None when unknown."""
        ...

    def jump_operand(self, instruction: Instruction, state: State) -> tuple[Value | None, Vaddr | None]:
        """Of an indirect jump: what is known of its target, and the memory slot it reads when that has a fixed address."""
        ...

    def bound(self, path: list[tuple[Instruction, bool]]) -> int | None:
        """How many elements a jump table has, from the check on the way to its jump; None when there is none.

        Args:
            path: The jump and the instructions before it, backwards, each with whether it was left by jumping.
        """
        ...

    def writes_arguments(self, instruction: Instruction, *, go: bool) -> bool:
        """Whether it overwrites a register that holds an argument (or, in Go, the goroutine)."""
        ...

    def refusal(self, instruction: Instruction) -> str:
        """Why the kernel would refuse a probe on it; empty when it would not."""
        ...

    def emulated(self, instruction: Instruction) -> bool:
        """Whether the kernel emulates it under a probe, which is several times cheaper than stepping over a copy."""
        ...

    def is_padding(self, instruction: Instruction) -> bool:
        """Whether it is what assemblers fill gaps with."""
        ...
