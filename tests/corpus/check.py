"""What Coral says of each function of an image, held against objdump's listing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from coral.elf.plan import plan_functions
from coral.elf.program import Program
from coral.elf.symbols import Function
from coral.model.errors import FailedPrecondition
from coral.model.site import FunctionPlan, Method, SiteKind
from corpus.listing import JUMP, RETURN, Listing

_PART = re.compile(r"\.cold(\.\d+)?$")
# What makes reasons different that are the same: addresses, offsets, the names of other functions.
_PARTICULAR = (
    (re.compile(r"\(?\b(?:0x)?[0-9a-f]{4,}\b\)?|\+?0x[0-9a-f]+"), "N"),
    (re.compile(r"\b\d[\d,]*\b"), "N"),
    (re.compile(r"another function, .*, inside of it"), "another function inside of it"),
    (re.compile(r"(into the middle of) .*"), r"\1 another function"),
    (re.compile(r"jumps into \S+, a part of another function"), "jumps into a part of another function"),
    (re.compile(r"probes on \S+ N"), "probes on this instruction"),
)
REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The verdict on one function.

    Attributes:
        name: Of the function.
        vaddr: Where it begins.
        verdict: ``ret_sites``, ``entry_only`` or ``refused``.
        reason: Why not ``ret_sites``, without what is particular to this function.
        sites: How many instructions would carry a probe.
        faults: What objdump sees differently, as sentences; empty when the verdict holds.
    """

    name: str
    vaddr: int
    verdict: str
    reason: str
    sites: int
    faults: tuple[str, ...]


def functions(program: Program) -> list[Function]:
    """The functions of an image, one for each address; parts that a compiler moved elsewhere belong to another one."""
    first: dict[int, Function] = {}
    for name, found in program.symbols.by_name.items():
        if not _PART.search(name):
            for function in found:
                first.setdefault(function.vaddr, function)
    return [first[vaddr] for vaddr in sorted(first)]


def check(program: Program, listed: Listing, chosen: Iterable[Function]) -> Iterator[Outcome]:
    """The verdicts on some functions.

    Args:
        program: The image.
        listed: What objdump says of it.
        chosen: The functions.
    """
    for function in chosen:
        try:
            plan = plan_functions(program, function.name, (function,))
        except FailedPrecondition as error:
            reason = str(error.details.get("reason", error.message))
            yield Outcome(
                name=function.name, vaddr=function.vaddr, verdict=REFUSED, reason=_general(reason), sites=0, faults=()
            )
            continue
        reason = plan.reason.removeprefix(f"{function.name} ").rstrip(".")
        faults = (*_off_boundaries(program, listed, plan), *_left_out(program, listed, function, plan))
        yield Outcome(
            name=function.name,
            vaddr=function.vaddr,
            verdict=plan.method.value,
            reason=_general(reason),
            sites=len(plan.sites),
            faults=faults,
        )


def _general(reason: str) -> str:
    for particular, general in _PARTICULAR:
        reason = particular.sub(general, reason)
    return reason


def _off_boundaries(program: Program, listed: Listing, plan: FunctionPlan) -> Iterator[str]:
    """Sites that objdump does not see an instruction at, or another one."""
    for site in plan.sites:
        vaddr = _vaddr(program, site.offset)
        seen = listed.at(vaddr)
        where = f"{site.kind.value} site at {vaddr:#x}"
        if seen is None:
            yield f"{where} is inside an instruction"
        elif seen[0] != len(site.original):
            yield f"{where} has {len(site.original)} bytes, {seen[0]} by objdump"
        elif site.kind is SiteKind.RETURN and seen[1] != RETURN:
            yield f"{where} is no return"
        elif site.kind is SiteKind.TAIL and seen[1] != JUMP:
            yield f"{where} is no jump"


def _left_out(program: Program, listed: Listing, function: Function, plan: FunctionPlan) -> Iterator[str]:
    """Returns in the range of the function, or of a cold part of it, that are no sites of an exact plan."""
    if plan.method is not Method.RET_SITES:
        return
    ranges = [(function.vaddr, function.end)]
    for alias in program.symbols.at(function.vaddr):
        # Static namesakes have parts of one name: only one that this function leaves by is sure to be its own.
        ranges += [
            (part.vaddr, part.end)
            for part in program.symbols.by_name.get(f"{alias.name}.cold", ())
            if any(part.vaddr <= _vaddr(program, site.offset) < part.end for site in plan.exits)
        ]
    known = {_vaddr(program, site.offset) for site in plan.exits if site.kind is SiteKind.RETURN}
    for start, end in ranges:
        for vaddr in listed.returns(start, end):
            if vaddr not in known:
                yield f"the return at {vaddr:#x} is left out"


def _vaddr(program: Program, offset: int) -> int:
    """Where a byte of the file is in memory, before the load bias, as executable code."""
    for segment in program.file.executable_segments:
        if segment.file_offset <= offset < segment.file_offset + segment.file_size_bytes:
            return offset - segment.file_offset + segment.vaddr
    raise ValueError(f"offset {offset:#x} is not in an executable segment")
