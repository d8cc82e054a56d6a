"""Where a jump out of a function leads: into a part of it that the compiler moved away, or into another function.

With symbols it is plain: compilers call the parts NAME.cold, BOLT some of them NAME.warm. Stripped files keep neither the
names of parts nor of static functions. There, a jump with something on the stack cannot be a tail call, but leads to a part;
with nothing on the stack, who else refers to the place decides: parts are only ever jumped to, by their own function alone.
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple

from coral.elf.program import Program
from coral.elf.symbols import Function
from coral.model.addresses import Vaddr

_COLD = re.compile(r"\.(cold|warm)(\.\d+)?$")


class Region(NamedTuple):
    """A range of code that belongs to a function.

    Attributes:
        start: Of its first byte.
        end: Behind its last one.
        exact: Whether all of it does, by a symbol or an FDE; otherwise it is only where to stop at the latest.
    """

    start: Vaddr
    end: Vaddr
    exact: bool

    def __contains__(self, vaddr: object) -> bool:
        return isinstance(vaddr, int) and self.start <= vaddr < self.end


class Verdict(enum.Enum):
    """What a jump out is."""

    PART = "part"
    TAIL = "tail"
    UNDECIDED = "undecided"
    REFUSED = "refused"


class Destination(NamedTuple):
    """Where a jump out leads.

    Attributes:
        verdict: What it is.
        region: Of a part.
        name: Of the other function; empty when it has none.
        reason: Of a refusal.
    """

    verdict: Verdict
    region: Region | None = None
    name: str = ""
    reason: str = ""


def base_of_cold(name: str) -> str | None:
    """The function that a symbol names a cold part of; None when it names something else."""
    match = _COLD.search(name)
    return name[: match.start()] if match else None


def begins_part(program: Program, function: Function, vaddr: Vaddr) -> bool:
    """Whether a part of the function begins at ``vaddr``: by its name, or because the stack is in use from its start on."""
    own = {alias.name for alias in program.symbols.at(function.vaddr)}
    if any(base_of_cold(each.name) in own for each in program.symbols.at(vaddr)):
        return True
    unwinding = program.unwinding(vaddr)
    if unwinding is None or unwinding.start != vaddr:
        return False
    first = unwinding.rows[0]
    return (first.register, first.offset) != (program.arch.frame_stack_register, program.arch.frame_bytes)


def resolve(program: Program, function: Function, target: Vaddr, stack: int | None) -> Destination:
    """Where a direct jump out of ``function`` to ``target`` leads.

    Args:
        program: The image.
        function: The function that jumps.
        target: Where to, outside of its known regions.
        stack: The stack pointer's distance from its value at the function's entry, at the jump; None when unknown.

    Returns:
        ``UNDECIDED`` where references have to decide: see ``decide``.
    """
    named = program.symbols.at(target)
    owner = named[0] if named else program.symbols.covering(target)
    if owner is not None:
        return _in_symbol(program, function, target, owner, starts=bool(named))
    name = program.stub(target)
    if name is not None:
        return Destination(Verdict.TAIL, name=name)
    segment = program.file.executable(target)
    if segment is None:
        return Destination(Verdict.REFUSED, reason=f"it jumps to {target:#x}, where there is no code")
    region = _unnamed(program, target, Vaddr(segment.vaddr + segment.file_size_bytes))
    if program.references.calls(region.start):
        if target == region.start:
            return Destination(Verdict.TAIL)
        return Destination(Verdict.REFUSED, reason=f"it jumps into the middle of the unnamed function at {region.start:#x}")
    if stack == 0 and target == region.start:
        return Destination(Verdict.UNDECIDED, region)
    return Destination(Verdict.PART, region)


def part(program: Program, function: Function, pad: Vaddr) -> Destination:
    """The part of ``function`` that holds one of its landing pads, which lies outside of its known regions.

    Args:
        program: The image.
        function: The function.
        pad: The address that its table of landing pads has.
    """
    owner = program.symbols.covering(pad)
    if owner is not None:
        found = _in_symbol(program, function, pad, owner, starts=False)
        return found if found.verdict is Verdict.PART else found._replace(reason=f"that is in {owner.name}")
    segment = program.file.executable(pad)
    if segment is None:
        return Destination(Verdict.REFUSED, reason="there is no code")
    return Destination(Verdict.PART, _unnamed(program, pad, Vaddr(segment.vaddr + segment.file_size_bytes)))


def _in_symbol(program: Program, function: Function, target: Vaddr, owner: Function, *, starts: bool) -> Destination:
    own = {alias.name for alias in program.symbols.at(function.vaddr)}
    for alias in program.symbols.at(owner.vaddr):
        base = base_of_cold(alias.name)
        if base in own:
            return Destination(Verdict.PART, Region(owner.vaddr, owner.end, True))
        if base is not None:
            return Destination(Verdict.REFUSED, reason=f"it jumps into {alias.name}, a part of another function")
    if starts:
        return Destination(Verdict.TAIL, name=program.symbols.name_at(target))
    return Destination(Verdict.REFUSED, reason=f"it jumps into the middle of {owner.name}")


def _unnamed(program: Program, target: Vaddr, segment_end: Vaddr) -> Region:
    """The range of code without a symbol that holds ``target``."""
    frame = program.frames.covering(target)
    if frame is not None:
        return Region(frame.start, frame.end, True)
    stops = (program.symbols.next_start(target), program.frames.next_start(target), segment_end)
    return Region(target, min(stop for stop in stops if stop is not None), False)


def decide(program: Program, regions: list[Region], target: Vaddr, region: Region) -> Destination:
    """Where an undecided jump leads, once the rest of the function is known.

    Args:
        program: The image.
        regions: Of the function.
        target: Where the jump goes, with nothing on the stack.
        region: The unnamed code there.
    """
    mine = [*regions, region]
    references = program.references
    elsewhere = any(not any(behind - 1 in own for own in mine) for behind in references.jumps(target))
    if not elsewhere and not references.calls(target) and not references.is_taken(target):
        return Destination(Verdict.PART, region)
    if _leads_back(program, regions, target, region):
        return Destination(Verdict.REFUSED, reason=f"it shares the code at {target:#x} with another function")
    return Destination(Verdict.TAIL)


def _leads_back(program: Program, regions: list[Region], target: Vaddr, region: Region) -> bool:
    """Whether any direct jump in the code at ``target`` goes into the middle of the function."""
    return any(
        instruction.target is not None
        and any(instruction.target in own and instruction.target != own.start for own in regions)
        for instruction in program.decode(target, region.end - target)
    )
