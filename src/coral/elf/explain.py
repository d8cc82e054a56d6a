"""What an attach to one function would do, site by site, or why it would be refused."""

from __future__ import annotations

from coral.elf import gorules
from coral.elf.arch.x86_64_text import text
from coral.elf.listing import entries_only, language_of, refused
from coral.elf.plan import find, is_exported, plan_functions
from coral.elf.program import Program
from coral.elf.symbols import Function
from coral.model.addresses import FileOffset, Vaddr
from coral.model.errors import FailedPrecondition
from coral.model.inspection import ExplainedSite, FunctionAddress, FunctionExplanation, Probeable, Verdict
from coral.model.site import FunctionPlan, Method, Site
from coral.model.text import printable

_MOST_SITES = 1000
"""That are told of; a message has to be read by somebody."""
_MOST_NAMES = 20


def explain(program: Program, wanted: str, *, library: str = "") -> FunctionExplanation:
    """What an attach to the function that ``wanted`` means would do.

    Args:
        program: The image.
        wanted: ``NAME`` or ``FILE:NAME``.
        library: Base name of the file, when it is not the program itself.

    Raises:
        NotFound: There is no such function.
        AmbiguousName: There are several.
    """
    functions: tuple[Function, ...] = ()
    name, language, hint = wanted, "", ""
    plan: FunctionPlan | None = None
    try:
        match = find(program, wanted)
        functions, name = match.functions, match.demangled
        language = language_of(program, match)
        plan = plan_functions(program, match.name, match.functions, library=library)
    except FailedPrecondition as error:
        verdict, hint = refused(error), error.hint
    else:
        name, language = plan.name, plan.language
        verdict = Verdict(probeable=Probeable.YES, reason="", exact=True)
        if plan.method is Method.ENTRY_ONLY:
            called = (plan.name, match.name, *(printable(function.name) for function in functions))
            verdict = entries_only(plan.reason, called)
            hint = "Its calls can be counted, their durations not. For durations, name one of its callers or callees."
    return FunctionExplanation(
        name=printable(name),
        verdict=verdict,
        hint=hint,
        language=language,
        method=plan.method if plan else "",
        pairing=plan.pairing if plan else "",
        addresses=tuple(_address(program, function) for function in functions),
        sites=tuple(_site(program, site) for site in plan.sites[:_MOST_SITES]) if plan else (),
        symbol_sources=tuple(program.symbols.sources),
        notes=(*program.symbols.notes, *filter(None, [gorules.inlined_too(program, plan.name) if plan else ""])),
        exported=is_exported(program, functions),
    )


def _address(program: Program, function: Function) -> FunctionAddress:
    others = {printable(other.name) for other in program.symbols.at(function.vaddr)} - {printable(function.name)}
    return FunctionAddress(
        vaddr=function.vaddr,
        file_offset=program.file.file_offset(function.vaddr) or FileOffset(0),
        size_bytes=function.size_bytes,
        symbol=printable(function.name),
        source_file=printable(function.file),
        also_named=tuple(sorted(others)[:_MOST_NAMES]),
    )


def _site(program: Program, site: Site) -> ExplainedSite:
    vaddr = _vaddr(program, site.offset)
    (instruction,) = program.arch.decode(site.original, vaddr, 1)
    return ExplainedSite(
        site=site,
        vaddr=vaddr,
        instruction=text(site.original, vaddr),
        emulated=program.arch.emulated(instruction),
    )


def _vaddr(program: Program, offset: FileOffset) -> Vaddr:
    """Where the byte at an offset of the file's code lies."""
    for segment in program.file.executable_segments:
        if segment.file_offset <= offset < segment.file_offset + segment.file_size_bytes:
            return Vaddr(segment.vaddr + offset - segment.file_offset)
    raise FailedPrecondition(f"Offset {offset:#x} of {program.file.path} holds no code.", hint="The file may have changed.")
