"""One function as the unwinder sees it: where exceptions land in it, and how deep its stack is, as its tables say."""

from __future__ import annotations

import bisect
from collections.abc import Iterable

from coral.elf.arch import Instruction, State
from coral.elf.landing import Landing, landings
from coral.elf.outside import Region
from coral.elf.program import Program
from coral.elf.unwind import Row, Unwinding
from coral.model.addresses import Vaddr

_MOST_PARTS = 4096


class Unwinder:
    """What .eh_frame and .gcc_except_table say of the regions of one function.

    Attributes:
        landings: Where exceptions go, by the range of instructions.
        understood: Whether every table of landing pads was; otherwise there may be more of them.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._descriptions: list[Unwinding] = []
        self._starts: list[Vaddr] = []
        self.landings: list[Landing] = []
        self.understood = True

    def add(self, region: Region) -> None:
        """Takes in what is said of a region."""
        at: int = region.start
        for _ in range(_MOST_PARTS):
            unwinding = self._program.unwinding(at)
            if unwinding is not None:
                self._descriptions.append(unwinding)
                found = landings(self._program.file, unwinding)
                self.understood = self.understood and found is not None
                self.landings.extend(found or ())
                self.landings.sort()
                self._starts = [landing.start for landing in self.landings]
                at = unwinding.end
            else:
                at = self._program.frames.next_start(at) or region.end
            if at >= region.end:
                return

    def pad(self, call: Instruction) -> Vaddr | None:
        """Where an exception out of a call goes; None when the function does not catch it."""
        index = bisect.bisect_right(self._starts, call.end - 1) - 1
        if index < 0 or call.end > self.landings[index].end:
            return None
        return self.landings[index].pad

    def row(self, vaddr: int) -> Row | None:
        """What is said of the stack at an instruction; None when nothing is."""
        for unwinding in self._descriptions:
            if unwinding.start <= vaddr < unwinding.end:
                return unwinding.at(vaddr)
        return None

    def depth(self, vaddr: int) -> int | None:
        """The stack pointer's distance from its value at the function's entry, in bytes; None when the table does not say."""
        row = self.row(vaddr)
        arch = self._program.arch
        if row is None or row.register != arch.frame_stack_register:
            return None
        return arch.frame_bytes - row.offset

    def has_frame(self, vaddr: int) -> bool:
        """Whether the table says that the stack is in use at an instruction, so that no call can end there."""
        row = self.row(vaddr)
        arch = self._program.arch
        return row is not None and (row.register, row.offset) != (arch.frame_stack_register, arch.frame_bytes)

    def landed(self, call: Instruction, pad: Vaddr, state: State) -> State:
        """What is known at a landing pad, from what is known when the call there is back.

        The unwinder restores what a callee must, and takes pushed arguments away (DW_CFA_GNU_args_size).
        """
        arch = self._program.arch
        row = self.row(call.end - 1)
        depth = arch.stack(state)
        if depth is not None:
            depth += row.arguments_bytes if row is not None else 0
        said = self.depth(pad)
        if depth is None:
            depth = said
        elif said is not None and said != depth:
            depth = None
        return arch.with_stack(state, depth)

    def is_right(self, states: Iterable[tuple[int, State]]) -> bool:
        """Whether the table of frames says what the instructions do, wherever both are known, and says more than nothing.

        Hand-written code may have an entry that was not kept up to date; one that follows the stack through the function was.
        """
        moved = False
        for vaddr, state in states:
            row = self.row(vaddr)
            if row is None or row.register < 0:
                continue
            known = self._program.arch.frame_register(state, row.register)
            if known is None:
                continue
            if known + row.offset != self._program.arch.frame_bytes:
                return False
            moved = moved or known != 0
        return moved
