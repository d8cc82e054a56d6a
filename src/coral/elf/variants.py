"""Which of a function's symbols are probed, so that each call counts once.

The Itanium C++ ABI (5.1.4.3) gives a constructor and a destructor several symbols: complete object (C1, D1), base object
(C2, D2), deleting (D0); GCC adds a unified one (C4, D4) under -Os. A virtual function of a second base has thunks. Compilers
are free to let one call or jump to another, or to give each the whole body: D0 calls D1, or has it inlined; a thunk jumps to
its function, falls into it, or has it inlined; C1 is C2, calls it, or is a copy of it. What the code does decides: a variant
that goes through another one whatever happens is left out, since the call is counted there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from coral.elf.arch import Flow, Instruction
from coral.elf.demangle import demangle
from coral.elf.grouping import spelled
from coral.elf.program import Program
from coral.elf.suffixes import dissect
from coral.elf.symbols import Function
from coral.model.addresses import Vaddr

_THUNK = re.compile(r"_ZT[hvc]")
_VARIANT = re.compile(r"[CD]([0-5])(?=[EIB])")
# Calls go from a variant to one with a smaller number; to one with a larger number only for another object.
_ORDER = {"0": 4, "3": 4, "1": 3, "5": 2, "2": 2, "4": 1}
_THUNKS_ORDER = 9
_MOST_INSTRUCTIONS = 20_000
_MOST_NAMES = 5
_LONGEST_NAME = 120


def counted(program: Program, functions: tuple[Function, ...]) -> tuple[Function, ...]:
    """Those of a function's addresses at which its calls are counted.

    Args:
        program: The image.
        functions: All addresses of one function.
    """
    if len(functions) == 1:
        return functions
    orders = {function.vaddr: _order(program, function) for function in functions}
    if not any(orders.values()):
        return functions
    kept = []
    for function in functions:
        order = orders[function.vaddr]
        lower = {other.vaddr for other in functions if orders[other.vaddr] < order}
        if order == _THUNKS_ORDER:  # a thunk may jump to another one, such as one that adjusts what is returned
            lower = {other.vaddr for other in functions if other is not function}
        if not (order and lower and _passes_on(program, function, lower)):
            kept.append(function)
    return tuple(kept)


def _order(program: Program, function: Function) -> int:
    """The place of a variant in the order of calls, the lowest of all its names; 0 of what is no variant and no thunk."""
    return min(_order_of(other.name) for other in program.symbols.at(function.vaddr) or [function])


def _order_of(name: str) -> int:
    if _THUNK.match(name):
        return _THUNKS_ORDER
    source = dissect(name).source
    spelling = spelled(source) if source.startswith("_Z") else None
    if spelling is None or not spelling.is_structor:
        return 0
    found = _VARIANT.findall(source)
    return _ORDER[found[-1]] if found else 0


def _passes_on(program: Program, function: Function, to: Collection[int]) -> bool:
    """Whether each way through the code of ``function`` calls, jumps or falls into one of the addresses ``to``."""
    names = {other.name for vaddr in to for other in program.symbols.at(vaddr)}
    waiting, seen, passed, count = [function.vaddr], set(), False, 0
    while waiting:
        at = waiting.pop()
        if at in to:
            passed = True
            continue
        if at in seen:
            continue
        inside = function.vaddr <= at < function.end
        end = function.end if inside else _piece_end(program, at)
        if end is None:
            return False
        for instruction in program.decode(at, end - at):
            count += 1
            if count > _MOST_INSTRUCTIONS:
                return False
            if instruction.address in seen:
                break
            seen.add(instruction.address)
            goes = _is_one_of(program, instruction, to, names)
            passed = passed or goes
            if goes or instruction.flow is Flow.STOP:
                break
            if instruction.flow is Flow.CALL:
                if instruction.target is not None and program.never_returns(instruction.target):
                    break
                continue
            if instruction.flow in (Flow.RETURN, Flow.INDIRECT, Flow.FOREIGN):
                return False
            if instruction.target is not None and instruction.flow is not Flow.NEXT:
                waiting.append(instruction.target)
                if instruction.flow is Flow.JUMP:
                    break
        else:
            waiting.append(end)
            if end not in to:
                return False
    return passed


def _piece_end(program: Program, at: int) -> Vaddr | None:
    """The end of the ``.cold`` part around an address; None when it is in none."""
    piece = program.symbols.covering(at)
    return piece.end if piece is not None and dissect(piece.name, program.symbols.by_name).piece else None


def _is_one_of(program: Program, instruction: Instruction, to: Collection[int], names: Collection[str]) -> bool:
    """Whether an instruction calls or jumps to one of some functions, perhaps through the linker's stub or slot."""
    if instruction.flow not in (Flow.CALL, Flow.JUMP, Flow.INDIRECT):
        return False
    if instruction.target is not None:
        return instruction.target in to or program.stub(instruction.target) in names
    _, slot = program.arch.jump_operand(instruction, program.arch.initial)
    return slot is not None and program.file.slots.get(slot) in names


def also_named(program: Program, function: Function, functions: Sequence[Function]) -> tuple[str, ...]:
    """What else the code of a function is called: aliases, and functions that the linker folded because their code is alike.

    Args:
        program: The image.
        function: One address of it.
        functions: All of them, whose own names are left out.
    """
    own = {dissect(each.name).source for each in functions}
    called = {demangle(source) or source for source in own}
    others = (dissect(other.name, program.symbols.by_name) for other in program.symbols.at(function.vaddr))
    names = {demangle(other.source) or other.source for other in others if other.source not in own} - called
    shown = [name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..." for name in sorted(names)]
    return (*shown[:_MOST_NAMES], *([f"{len(shown) - _MOST_NAMES} more"] if len(shown) > _MOST_NAMES else []))
