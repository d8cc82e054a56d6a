"""Where the names of an image's functions come from: its own tables, those packed into it, and a file beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from coral.elf.debuglink import Rejected, debug_file
from coral.elf.file import ElfFile
from coral.elf.headers import Headers
from coral.elf.image import OpenFile
from coral.elf.minidebug import mini_debug_info
from coral.elf.symbols import Frames, SymbolTable
from coral.elf.symtab import Symbols
from coral.model.text import printable


class Beside(NamedTuple):
    """What was found in the files beside an image.

    Attributes:
        path: Of the right one; empty when there is none.
        headers: Of it.
        notes: Why others were not used, as sentences.
    """

    path: str = ""
    headers: Headers | None = None
    notes: tuple[str, ...] = ()


def look_beside(image: Headers, debug: Sequence[OpenFile]) -> Beside:
    """The first of some files that holds what was stripped from an image.

    Args:
        image: The image.
        debug: The files, the likeliest first; they may be closed afterwards.
    """
    notes: tuple[str, ...] = ()
    for candidate in debug:
        try:
            return Beside(candidate.path, debug_file(image, candidate), notes)
        except Rejected as rejected:
            notes += (str(rejected),)
    return Beside(notes=notes)


def read_symbols(file: ElfFile, frames: Frames, beside: Beside) -> SymbolTable:
    """The functions that an image and what belongs to it name.

    Args:
        file: The image.
        frames: Tells sizes that symbols do not have.
        beside: What was found beside it.

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
    found.notes += beside.notes
    kept = _symtab(beside.headers) if beside.headers is not None else None
    if kept is not None:
        found.add_table(printable(beside.path), kept)
    build_id = file.headers.build_id
    if build_id and kept is None and not {".symtab", ".gnu_debugdata"} & set(found.sources):
        found.wanted = f".build-id/{build_id[:2]}/{build_id[2:]}.debug"
    return found


def _symtab(headers: Headers) -> Symbols | None:
    """The symbol table that is for debuggers; None when there is none."""
    section = headers.section(".symtab")
    if section is None or section.link >= len(headers.sections):
        return None
    return Symbols.of(headers.content(section), headers.content(headers.sections[section.link]))
