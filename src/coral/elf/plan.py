"""From an image and a name to the plan of probes that the kernel layer attaches as it stands."""

from __future__ import annotations

from coral.elf import demangle, flow, names, sites
from coral.elf.program import Program
from coral.elf.symbols import Function
from coral.model.errors import FailedPrecondition
from coral.model.site import FunctionPlan, Method, Pairing, Site
from coral.model.text import printable

_MOST_SITES = 65_535

# Functions of Go's runtime that switch stacks or go on elsewhere, so that what enters them does not return from them. The
# runtime marks those in assembly itself (SPWRITE); these call one that is.
_SCHEDULER = frozenset(
    "runtime." + name
    for name in (
        *("mcall", "schedule", "execute", "park_m", "gosched_m", "goschedImpl", "goexit0", "goexit1", "goexit", "newstack"),
        *("morestack", "morestack_noctxt", "systemstack", "systemstack_switch", "asmcgocall", "cgocallback", "gogo"),
        *("gopreempt_m", "goyield_m", "preemptPark", "exitsyscall0", "exitsyscallNoP", "mstart", "mstart0", "mstart1"),
        *("rt0_go", "recovery", "sigtramp"),
    )
)


def plan(program: Program, text: str, *, library: str = "") -> FunctionPlan:
    """The plan for the function that ``text`` means.

    Args:
        program: The image.
        text: ``NAME`` or ``FILE:NAME``.
        library: Base name of the file, when it is not the program itself.

    Raises:
        NotFound: There is no such function.
        AmbiguousName: There are several.
        FailedPrecondition: It cannot be probed; the message says why.
    """
    match = names.find(program.symbols, text, program.file.path)
    return plan_functions(program, match.name, match.functions, library=library)


def plan_functions(program: Program, name: str, functions: tuple[Function, ...], *, library: str = "") -> FunctionPlan:
    """The plan for one function at one or several addresses.

    Args:
        program: The image.
        name: Its name.
        functions: Itself and its clones.
        library: Base name of the file, when it is not the program itself.

    Raises:
        FailedPrecondition: It cannot be probed; the message says why.
    """
    entries: list[Site] = []
    leaves: list[Site] = []
    problem = ""
    languages = set()
    for function in functions:
        entry, exits, why, go = _plan_one(program, function)
        entries.append(entry)
        leaves.extend(exits)
        languages.add(go)
        if why and not problem:
            problem = f"{printable(function.name)} {why}."
    if len(languages) > 1:
        raise FailedPrecondition(f"{printable(name)} is both a Go and a C function.", hint="Name one by FILE:NAME.")
    if not problem and len(entries) + len(leaves) > _MOST_SITES:
        problem = f"{printable(name)} has more than {_MOST_SITES:,} places where it ends."
    leaves = [] if problem else sorted({site.offset: site for site in leaves}.values(), key=lambda site: site.offset)
    go = languages == {True}
    return FunctionPlan(
        name=name,
        language="go" if go else demangle.language(functions[0].name),
        pairing=Pairing.GO if go else Pairing.STACK_POINTER,
        method=Method.ENTRY_ONLY if problem else Method.RET_SITES,
        reason=problem,
        sites=(*sorted(entries, key=lambda site: site.offset), *leaves),
        library=library,
    )


def _plan_one(program: Program, function: Function) -> tuple[Site, list[Site], str, bool]:
    """Entry, exits, why the exits cannot be used, and whether it is Go."""
    check_tables(program, function)
    go_function = program.go.at(function.vaddr) if program.go else None
    go = go_function is not None
    body = flow.explore(program, function, go=go, resumes_at=go_function.resumes_at if go_function else None)
    inner = [other for other in program.symbols.inside(function.vaddr, function.end) if other.size_bytes]
    if inner and not body.problem:
        body.problem = f"has another function, {printable(inner[0].name)}, inside of it"
    try:
        entry = sites.entry(program, body, go=go)
        leaves, problem = sites.exits(program, body)
    except sites.NoEntry as error:
        raise _refused(function, str(error)) from error
    return entry, leaves, problem, go


def check_tables(program: Program, function: Function) -> None:
    """Refuses what the tables of the file alone say cannot be probed; decodes nothing.

    Raises:
        FailedPrecondition: It cannot.
    """
    if function.indirect:
        raise _refused(function, "is chosen when the program starts (IFUNC), so its symbol is that of the chooser")
    if not function.size_bytes:
        raise _refused(function, "has no size in the symbol table, so where it ends is not known")
    segment = program.file.executable(function.vaddr)
    if segment is None or function.end > segment.vaddr + segment.file_size_bytes:
        raise _refused(function, "is not in a part of the file that is mapped executable")
    if program.file.info.language == "go" and not program.go:
        raise _refused(function, "is in a Go program older than Go 1.18, or its table of functions is damaged")
    go = program.go.at(function.vaddr) if program.go else None
    if go is not None and (reason := _go_refusal(function, assembly=go.assembly, sp=go.writes_sp)):
        raise _refused(function, reason)


def _go_refusal(function: Function, *, assembly: bool, sp: bool) -> str:
    if function.name in _SCHEDULER or sp:
        return "switches stacks, so its calls do not return from it"
    if assembly or function.name.endswith(".abi0"):
        return "is written in assembly (ABI0), where the goroutine is not known to be in r14"
    return ""


def _refused(function: Function, reason: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{printable(function.name)} cannot be probed: it {reason}.",
        hint="Name one of its callers or callees.",
        details={"reason": reason},
    )
