"""Chooses the instructions of a function that carry probes: one entry, and every exit."""

from __future__ import annotations

from coral.elf.arch import Flow, Instruction
from coral.elf.body import Body
from coral.elf.program import Program
from coral.model.addresses import FileOffset, Vaddr
from coral.model.site import Site, SiteKind

_PREFIX = 24


class NoEntry(Exception):
    """No instruction can carry the entry probe; the text is the reason, as the rest of a sentence."""


def entry(program: Program, body: Body, *, go: bool, behind: Vaddr | None = None) -> Site:
    """The first instruction that every call executes exactly once, before the stack and the arguments move.

    Args:
        program: The image.
        body: The function.
        go: Whether it follows Go's calling convention.
        behind: Of a function that takes no arguments in registers, so that those may be overwritten: where to begin.

    Raises:
        NoEntry: There is none.
    """
    reasons: list[str] = []
    candidates: list[Instruction] = []
    # Where a jump may leave the function, its exit probe is needed there alone: entry and exit at once would depend on order.
    leaves = {leave.instruction.address for leave in body.exits}
    for instruction in _prefix(program, body, go=go, registers=behind is None):
        if behind is not None and instruction.address < behind:
            continue
        refusal = program.refusal(instruction)
        reason = f"begins where {refusal}" if refusal else _uneven(body, instruction)
        if reason:
            reasons.append(reason)
        else:
            candidates.append(instruction)
            if instruction.address not in leaves and program.arch.emulated(instruction):
                break  # none can be better
    if not candidates:
        raise NoEntry(reasons[0] if reasons else "has no code that decodes")
    apart = [candidate for candidate in candidates if candidate.address not in leaves] or candidates
    chosen = next((candidate for candidate in apart if program.arch.emulated(candidate)), apart[0])
    return site(program, chosen, SiteKind.ENTRY, _entry_reason(body, chosen, emulated=program.arch.emulated(chosen)))


def exits(program: Program, body: Body) -> tuple[list[Site], str]:
    """The sites at which calls end, by offset, and why they cannot be used (empty when they can)."""
    problem = body.problem
    found = []
    for leave in body.exits:
        instruction = leave.instruction
        refusal = program.refusal(instruction)
        if refusal and not problem:
            problem = f"leaves at +{instruction.address - body.function.vaddr:#x}, where {refusal}"
        if instruction.flow is Flow.RETURN:
            found.append(site(program, instruction, SiteKind.RETURN, "a return of the function"))
        else:
            conditional = instruction.flow is Flow.BRANCH
            to = f" to {leave.to}" if leave.to else ""
            reason = f"{'a conditional' if conditional else 'a'} jump out of the function{to}"
            found.append(site(program, instruction, SiteKind.TAIL, reason, condition=instruction.condition, to=leave.to))
    if not found and not problem:
        problem = "never returns"
    return sorted(found, key=lambda each: each.offset), problem


def site(
    program: Program, instruction: Instruction, kind: SiteKind, reason: str, *, condition: int = -1, to: str = ""
) -> Site:
    """A site on an instruction of the image."""
    offset = program.file.file_offset(instruction.address)
    if offset is None:
        raise NoEntry("is not in the file")
    return Site(offset=FileOffset(offset), kind=kind, reason=reason, condition=condition, to=to, original=instruction.code)


def _prefix(program: Program, body: Body, *, go: bool, registers: bool) -> list[Instruction]:
    """The instructions at the start up to the first that may not come before an entry probe."""
    found: list[Instruction] = []
    at: Vaddr = body.function.vaddr
    while len(found) < _PREFIX:
        instruction = body.instructions.get(at)
        if instruction is None or program.arch.stack(body.states[at]) != 0:
            break
        found.append(instruction)
        if instruction.flow not in (Flow.NEXT, Flow.BRANCH):
            break
        if registers and program.arch.writes_arguments(instruction, go=go):
            break
        at = instruction.end
    return found


def _uneven(body: Body, instruction: Instruction) -> str:
    """Why calls may execute ``instruction`` not exactly once; empty when they do."""
    vaddr = instruction.address
    offset = vaddr - body.function.vaddr
    if any(inner in body.instructions or inner in body.named_targets for inner in range(vaddr + 1, instruction.end)):
        return f"jumps into the instruction at +{offset:#x}"
    if any(target in body.named_targets for target in range(body.function.vaddr, instruction.end)):
        return f"has code that jumps back to or before +{offset:#x}, and how that is reached is not known"
    if vaddr in _reached(body, body.successors.get(vaddr, set()), without=None):
        return "jumps back to its first instruction" if not offset else f"jumps back to or before +{offset:#x}"
    passed_by = _reached(body, {body.function.vaddr}, without=vaddr)
    leaving = {leave.instruction.address for leave in body.exits}
    if any(each in leaving or not body.successors.get(each) for each in passed_by):
        return f"leaves on a way that does not pass +{offset:#x}"
    return ""


def _reached(body: Body, start: set[int], *, without: int | None) -> set[int]:
    """Everything that control can reach from ``start``, not passing ``without``."""
    seen = {each for each in start if each != without}
    todo = list(seen)
    while todo:
        for successor in body.successors.get(todo.pop(), ()):
            if successor not in seen and successor != without:
                seen.add(successor)
                todo.append(successor)
    return seen


def _entry_reason(body: Body, chosen: Instruction, *, emulated: bool) -> str:
    offset = chosen.address - body.function.vaddr
    where = "the first instruction" if not offset else f"{chosen.mnemonic} at +{offset:#x}"
    cost = ", which the kernel emulates" if emulated else ""
    return f"{where}: every call executes it once, before the stack moves{cost}"
