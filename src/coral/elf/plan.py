"""From an image and a name to the plan of probes that the kernel layer attaches as it stands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from coral.elf import demangle, flow, gorules, indirect, names, sites, splits, variants
from coral.elf.called import called
from coral.elf.goroutine import goid_offset
from coral.elf.program import Program
from coral.elf.symbols import Function
from coral.model.errors import FailedPrecondition, NotFound
from coral.model.site import FunctionPlan, Method, Pairing, Site
from coral.model.text import printable

_MOST_SITES = 65_535


def plan(program: Program, text: str, *, library: str = "", advise: bool = True) -> FunctionPlan:
    """The plan for the function that ``text`` means.

    Args:
        program: The image.
        text: ``NAME`` or ``FILE:NAME``.
        library: Base name of the file, when it is not the program itself.
        advise: Whether nearest names are looked for when there is no such function.

    Raises:
        NotFound: There is no such function.
        AmbiguousName: There are several.
        FailedPrecondition: It cannot be probed; the message says why.
    """
    match = find(program, text, advise=advise)
    return plan_functions(program, match.name, match.functions, library=library)


def find(program: Program, text: str, *, advise: bool = True) -> names.Match:
    """The function that ``text`` means.

    Raises:
        NotFound: There is none.
        AmbiguousName: There are several.
        FailedPrecondition: It has no code that could be probed.
    """
    try:
        return names.find(program.symbols, text, program.file.path, advise=advise)
    except (NotFound, FailedPrecondition) as error:
        raise gorules.explain_absence(program, text) or error from error


def plan_functions(program: Program, name: str, functions: tuple[Function, ...], *, library: str = "") -> FunctionPlan:
    """The plan for one function at one or several addresses.

    Args:
        program: The image.
        name: Its name.
        functions: All addresses of it.
        library: Base name of the file, when it is not the program itself.

    Raises:
        FailedPrecondition: It cannot be probed; the message says why.
    """
    functions = variants.counted(program, functions)
    entries: list[Site] = []
    leaves: list[Site] = []
    problem = ""
    kinds = set()
    for function in functions:
        entry, exits, why, kind = _plan_one(program, function)
        if others := variants.also_named(program, function, functions):
            entry = replace(entry, reason=f"{entry.reason}; the same code is also {', '.join(map(printable, others))}")
        if rest := splits.split_off(program, function):
            unseen = f"calls by callers that its beginning was inlined into, which go on in {printable(rest)}, are not seen"
            entry = replace(entry, reason=f"{entry.reason}; {unseen}")
        entries.append(entry)
        leaves.extend(exits)
        kinds.add(kind)
        if why and not problem:
            problem = f"{printable(function.name)} {why}."
    if len(kinds) > 1:
        raise FailedPrecondition(
            f"{printable(name)} is both a compiled Go function and another one.", hint="Name one by FILE:NAME."
        )
    if not problem and len(entries) + len(leaves) > _MOST_SITES:
        problem = f"{printable(name)} has more than {_MOST_SITES:,} places where it ends."
    leaves = [] if problem else sorted({site.offset: site for site in leaves}.values(), key=lambda site: site.offset)
    ((go, pairing),) = kinds
    names, all_names = called(program, functions, name)
    return FunctionPlan(
        name=name,
        language="go" if go else demangle.language(functions[0].name),
        pairing=pairing,
        method=Method.ENTRY_ONLY if problem else Method.RET_SITES,
        reason=problem,
        sites=(*sorted(entries, key=lambda site: site.offset), *leaves),
        library=library,
        goid_offset=goid_offset(program) if pairing is Pairing.GO else 0,
        called=names,
        all_called=all_names,
        exported=is_exported(program, functions),
    )


def is_exported(program: Program, functions: Iterable[Function]) -> bool:
    """Whether other files can call a function by a name of its; what a version script hides is local in the file."""
    return any(not each.local for function in functions for each in (function, *program.symbols.at(function.vaddr)))


def _plan_one(program: Program, function: Function) -> tuple[Site, list[Site], str, tuple[bool, Pairing]]:
    """Entry, exits, why the exits cannot be used, and whether it is Go and by what its calls are paired."""
    check_tables(program, function)
    known = program.go.at(function.vaddr)
    go = known is not None
    body = flow.explore(program, function, go=go, resumes_at=known.resumes_at if known else None)
    if known is not None:
        if known.assembly and (reason := gorules.entered_inside(program, function, body)):
            raise _refused(function, reason)
        body.problem = gorules.restriction(function, known) or body.problem or gorules.unpaired(program, known, body)
    inner = [other for other in program.symbols.inside(function.vaddr, function.end) if other.size_bytes]
    if inner and not body.problem:
        body.problem = f"has another function, {printable(inner[0].name)}, inside of it"
    try:
        entry = sites.entry(program, body, go=go, behind=gorules.entry_behind(known, body) if known else None)
        leaves, problem = sites.exits(program, body)
    except sites.NoEntry as error:
        raise _refused(function, str(error)) from error
    return entry, leaves, problem, (go, gorules.pairing(known) if known else Pairing.STACK_POINTER)


def check_tables(program: Program, function: Function) -> None:
    """Refuses what the tables of the file alone say cannot be probed; decodes nothing.

    Raises:
        FailedPrecondition: It cannot.
    """
    if function.indirect:
        reason = "is chosen when the program starts (IFUNC), so its symbol is that of the chooser"
        raise _refused(function, reason, indirect.advice(program, function))
    if not function.size_bytes:
        raise _refused(function, "has no size in the symbol table, so where it ends is not known")
    segment = program.file.executable(function.vaddr)
    if segment is None or function.end > segment.vaddr + segment.file_size_bytes:
        raise _refused(function, "is not in a part of the file that is mapped executable")
    if program.file.info.language == "go" and not program.go:
        raise gorules.too_old(program) or _refused(function, "is in a Go program whose table of functions is damaged")
    known = program.go.at(function.vaddr)
    if known is not None and (reason := gorules.refusal(function, known)):
        raise _refused(function, reason)


def _refused(function: Function, reason: str, hint: str = "Name one of its callers or callees.") -> FailedPrecondition:
    return FailedPrecondition(
        f"{printable(function.name)} cannot be probed: it {reason}.",
        hint=hint,
        details={"reason": reason, **({"local": "yes"} if function.local else {})},
    )
