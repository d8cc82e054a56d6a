"""What is known of one function once its control flow was followed."""

from __future__ import annotations

from dataclasses import dataclass, field

from coral.elf.arch import Instruction, State
from coral.elf.outside import Destination, Region
from coral.elf.symbols import Function
from coral.elf.unwinder import Unwinder
from coral.model.addresses import Vaddr


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """An instruction at which a call of the function ends.

    Attributes:
        instruction: A return or a jump.
        to: For a jump, the name of the function that goes on; empty when unknown.
    """

    instruction: Instruction
    to: str = ""


@dataclass(slots=True, kw_only=True)
class Body:
    """One function, explored.

    Attributes:
        function: Which.
        regions: The ranges of its code, its own first.
        instructions: Those that are reached, by address.
        states: What is known before each of them.
        successors: Where each goes, inside of the function.
        exits: Where calls end, by address.
        problem: Why the exits may be incomplete, as the rest of a sentence; empty when they are complete.
        named_targets: What direct jumps in code that was not reached go to.
    """

    function: Function
    regions: list[Region]
    instructions: dict[int, Instruction] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)
    successors: dict[int, set[int]] = field(default_factory=dict)
    exits: list[Exit] = field(default_factory=list)
    problem: str = ""
    named_targets: set[int] = field(default_factory=set)

    def __contains__(self, vaddr: object) -> bool:
        return any(vaddr in region for region in self.regions)

    def fail(self, problem: str) -> None:
        """Notes why the exits may be incomplete; the first reason stays."""
        if not self.problem:
            self.problem = problem

    def place(self, vaddr: int) -> str:
        """An address for messages: its distance from the function's start, where it lies behind that."""
        return f"+{vaddr - self.function.vaddr:#x}" if vaddr >= self.function.vaddr else f"{vaddr:#x}"


@dataclass(slots=True, kw_only=True)
class Trail:
    """What was met while a function was followed, of which its exits are told.

    Attributes:
        unwinder: What its tables for exceptions say.
        rows: Its instructions as they lie in a row, and those that are reached otherwise, by address.
        leaving: The jumps out of it, by address: where to, and what that is.
        tables: The jumps that read a jump table.
        table_targets: Where those lead.
    """

    unwinder: Unwinder
    rows: dict[int, Instruction] = field(default_factory=dict)
    leaving: dict[int, tuple[Vaddr, Destination]] = field(default_factory=dict)
    tables: set[int] = field(default_factory=set)
    table_targets: set[int] = field(default_factory=set)
