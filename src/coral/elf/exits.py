"""The exits of a function whose control flow was followed, and whether there can be others.

Where the stack's depth at an exit could not be followed (a frame that is aligned and of variable size at once), the table of
frames has it. Code that was not reached must hold no exit: a return there, or a jump out, makes the function ``ENTRY_ONLY``,
unless the table says that the stack is in use at that place.
"""

from __future__ import annotations

from functools import cached_property

from coral.elf.arch import Flow, Instruction
from coral.elf.body import Body, Exit, Trail
from coral.elf.outside import Destination, Verdict
from coral.elf.program import Program


class Exits:
    """Collects the exits of one function into its body, and what speaks against their being all.

    Args:
        program: The image.
        body: The function, followed.
        trail: What was met on the way.
    """

    def __init__(self, program: Program, body: Body, trail: Trail) -> None:
        self._program = program
        self._body = body
        self._trail = trail

    def collect(self) -> None:
        """Collects the exits, and checks that there can be no others."""
        body = self._body
        if not self._trail.unwinder.understood:
            self._body.fail("has a table of landing pads that is not understood")
        for address in sorted(body.instructions):
            instruction = body.instructions[address]
            depth = self._depth(address)
            if instruction.flow is Flow.RETURN:
                if depth != 0:
                    self._body.fail(
                        f"returns at {self._body.place(address)} with a stack pointer that is {_depth_text(depth)}"
                    )
                body.exits.append(Exit(instruction=instruction))
            elif address in self._trail.leaving:
                self._leave(instruction, depth, self._trail.leaving[address][1])
        self._check_tables()
        self._check_tiling()
        self._check_unreached()
        body.named_targets = {
            row.target
            for row in self._trail.rows.values()
            if row.target is not None and row.flow is not Flow.CALL and row.address not in body.instructions
        }

    def _depth(self, address: int) -> int | None:
        """The stack's depth at an exit: as followed from the entry, or else as the table of frames has it."""
        depth = self._program.arch.stack(self._body.states[address])
        if depth is None and self._frames_are_right:
            return self._trail.unwinder.depth(address)
        return depth

    @cached_property
    def _frames_are_right(self) -> bool:
        return self._trail.unwinder.is_right(self._body.states.items())

    def _leave(self, instruction: Instruction, depth: int | None, destination: Destination) -> None:
        where = self._body.place(instruction.address)
        if destination.verdict is Verdict.REFUSED:
            self._body.fail(f"cannot be followed at {where}: {destination.reason}")
        elif depth != 0 and instruction.flow is Flow.INDIRECT:
            self._body.fail(f"has an indirect jump at {where} whose targets are not known")
        elif _through_pointer(instruction, destination) and self._has_labels:
            self._body.fail(f"has an indirect jump at {where} that may stay inside, since addresses inside of it are taken")
        elif depth != 0:
            self._body.fail(f"jumps out at {where} with a stack pointer that is {_depth_text(depth)}")
        elif instruction.flow is Flow.LOOP:
            self._body.fail(f"leaves by {instruction.mnemonic} at {where}, whose condition no probe can see")
        self._body.exits.append(Exit(instruction=instruction, to=destination.name))

    @cached_property
    def _has_labels(self) -> bool:
        """Whether an address inside, of no known jump table, is taken, so that a jump through a pointer may go there."""
        start = self._body.function.vaddr
        return any(
            taken != start and taken in self._trail.rows and taken not in self._trail.table_targets
            for region in self._body.regions
            for taken in self._program.references.taken_between(region.start, region.end)
        )

    def _check_tables(self) -> None:
        """Where a jump may read another table than the one seen first, unreached exits must be sure to be noticed."""
        for address in self._trail.tables:
            instruction = self._body.instructions[address]
            value, _ = self._program.arch.jump_operand(instruction, self._body.states[address])
            if value is None and not all(region.exact for region in self._body.regions):
                self._body.fail(f"has a jump at {self._body.place(address)} that may read more than one table")

    def _check_tiling(self) -> None:
        """No two reached instructions may overlap."""
        end = 0
        for address in sorted(self._body.instructions):
            if address < end:
                self._body.fail(f"has overlapping instructions at {self._body.place(address)}")
            end = self._body.instructions[address].end

    def _check_unreached(self) -> None:
        """No exit may hide in code that was not reached."""
        for region in self._body.regions:
            if not region.exact or self._body.problem:
                continue
            at = region.start
            while at < region.end:
                instruction = self._body.instructions.get(at)
                if instruction is None:
                    instruction = self._trail.rows.get(at) or next(iter(self._program.decode(at, region.end - at, 1)), None)
                    if instruction is None:
                        self._body.fail(f"has data among its code at {self._body.place(at)}")
                        return
                    if self._may_leave(instruction):
                        self._body.fail(f"may also leave at {self._body.place(at)}, and how that is reached is not known")
                        return
                at = instruction.end

    def _may_leave(self, instruction: Instruction) -> bool:
        if self._frames_are_right and self._trail.unwinder.has_frame(instruction.address):
            return False
        if instruction.flow in (Flow.RETURN, Flow.INDIRECT):
            return True
        target = instruction.target
        return (
            instruction.flow in (Flow.JUMP, Flow.BRANCH, Flow.LOOP)
            and target is not None
            and target not in self._body
            and not self._program.never_returns(target)
            and not self._program.resumes_unwinding(target)
        )


def _through_pointer(instruction: Instruction, destination: Destination) -> bool:
    """Whether a jump out may lead anywhere: an indirect one, or one to the thunk that stands for it (retpolines)."""
    if instruction.flow is Flow.INDIRECT:
        return not destination.name
    return destination.name.startswith(("__x86_indirect_thunk", "__llvm_retpoline"))


def _depth_text(depth: int | None) -> str:
    return "not known there" if depth is None else f"{-depth} bytes below that of its entry"
