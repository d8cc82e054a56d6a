"""Where the names of an image's functions come from: its own tables, those packed into it, and a file beside it."""

from __future__ import annotations

from collections.abc import Sequence

from coral.elf.debuglink import Rejected, debug_file
from coral.elf.file import ElfFile
from coral.elf.headers import Headers
from coral.elf.image import OpenFile
from coral.elf.minidebug import mini_debug_info
from coral.elf.symbols import Frames, SymbolTable
from coral.elf.symtab import Symbols
from coral.model.text import printable


def read_symbols(file: ElfFile, frames: Frames, debug: Sequence[OpenFile]) -> SymbolTable:
    """The functions that an image and what belongs to it name.

    Args:
        file: The image.
        frames: Tells sizes that symbols do not have.
        debug: Files that may hold what was stripped from it, the likeliest first; the first right one is used.

    Raises:
        FailedPrecondition: There are absurdly many names.
    """
    found = SymbolTable(frames)
    found.needed = file.dynamic.needed
    own = _symtab(file.headers)
    if own is not None:
        found.add_table(".symtab", own)
    found.add_table(".dynsym", file.dynamic.symbols, file.dynamic.versions)
    try:
        packed = mini_debug_info(file.headers)
        inner = _symtab(packed) if packed is not None else None
        if inner is not None:
            found.add_table(".gnu_debugdata", inner)
    except Rejected as rejected:
        found.notes += (str(rejected),)
    for candidate in debug:
        try:
            beside = _symtab(debug_file(file.headers, candidate))
        except Rejected as rejected:
            found.notes += (str(rejected),)
            continue
        if beside is not None:
            found.add_table(printable(candidate.path), beside)
        return found
    build_id = file.headers.build_id
    if build_id and not {".symtab", ".gnu_debugdata"} & set(found.sources):
        found.wanted = f".build-id/{build_id[:2]}/{build_id[2:]}.debug"
    return found


def _symtab(headers: Headers) -> Symbols | None:
    """The symbol table that is for debuggers; None when there is none."""
    section = headers.section(".symtab")
    if section is None or section.link >= len(headers.sections):
        return None
    return Symbols.of(headers.content(section), headers.content(headers.sections[section.link]))
