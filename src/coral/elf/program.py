"""Everything that the analysis of a function asks of the file around it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from coral.elf import noreturn, unwind
from coral.elf.arch import Architecture, Flow, Instruction
from coral.elf.arch.x86_64 import X8664
from coral.elf.file import ElfFile
from coral.elf.frames import FrameTable
from coral.elf.goinline import InlineTrees
from coral.elf.gotable import GoTable
from coral.elf.image import OpenFile
from coral.elf.references import References
from coral.elf.sources import look_beside, read_symbols
from coral.elf.symbols import SymbolTable
from coral.elf.textrel import TextRelocations
from coral.elf.unwind import Unwinding
from coral.model.addresses import Vaddr

_LANDING_PAD_BYTES = 512
_EXECUTABLE = 4  # SHF_EXECINSTR


class Program:
    """One image: its file, the tables in it, and questions about addresses. Each table is read when it is first asked for.

    Args:
        file: The image.
        debug: Files that may hold what was stripped from it, the likeliest first.
    """

    def __init__(self, file: ElfFile, *, debug: Sequence[OpenFile] = ()) -> None:
        self.file = file
        self.arch: Architecture = X8664()
        self._beside = look_beside(file.headers, debug)

    @cached_property
    def frames(self) -> FrameTable:
        """The ranges that .eh_frame has."""
        return FrameTable(self.file)

    @cached_property
    def symbols(self) -> SymbolTable:
        """The functions that it names, and what was stripped from it; reading them takes 10 µs each."""
        found = read_symbols(self.file, self.frames, self._beside)
        if self.go and not found.at(self.go.first):
            found.add_functions(".gopclntab", self.go.functions())
        return found

    @cached_property
    def references(self) -> References:
        """Who refers to what in it."""
        return References(self.file)

    @cached_property
    def go(self) -> GoTable:
        """The Go part of it; false when there is none."""
        return GoTable(self.file)

    @cached_property
    def inlined(self) -> InlineTrees:
        """Which Go functions were inlined into which."""
        return InlineTrees(self.file, self.go)

    def unwinding(self, vaddr: int) -> Unwinding | None:
        """What .eh_frame says of the code at ``vaddr``; None when it says nothing that is understood."""
        where = self.frames.description(vaddr)
        found = unwind.read(self.file, where) if where is not None else None
        return found if found is not None and found.start <= vaddr < found.end else None

    def decode(self, vaddr: int, size_bytes: int, count: int = 0) -> list[Instruction]:
        """Up to ``count`` instructions (0: all) of the ``size_bytes`` at ``vaddr``, until one does not decode."""
        found = self.arch.decode(self.file.read(vaddr, size_bytes), Vaddr(vaddr), count)
        return self._text_relocations.unknown(found) if self._text_relocations else found

    @cached_property
    def _text_relocations(self) -> TextRelocations:
        return TextRelocations(self.file)

    def refusal(self, instruction: Instruction) -> str:
        """Why there must be no probe on an instruction; empty when there may."""
        if self._text_relocations and self._text_relocations.touch(instruction.address, instruction.end):
            return f"the dynamic linker writes into {instruction.mnemonic} (a text relocation), so the file does not have it"
        return self.arch.refusal(instruction)

    @cached_property
    def _code(self) -> tuple[tuple[int, int], ...]:
        sections = self.file.headers.sections
        return tuple((each.vaddr, each.vaddr + each.size_bytes) for each in sections if each.flags & _EXECUTABLE)

    def is_code(self, vaddr: int) -> bool:
        """Whether ``vaddr`` is where code is: in a section for it, or, in a file without sections, in a segment with some."""
        if not self._code:
            return self.file.executable(vaddr) is not None
        return any(start <= vaddr < end for start, end in self._code)

    def stub(self, vaddr: int) -> str | None:
        """The name behind a PLT stub (``[endbr64] [bnd] jmp *slot(%rip)``) at ``vaddr``; None when there is no stub."""
        for instruction in self.decode(vaddr, 16, 2):
            if instruction.flow is Flow.INDIRECT:
                _, slot = self.arch.jump_operand(instruction, self.arch.initial)
                return self.file.slots.get(slot) if slot is not None else None
            if instruction.mnemonic != "endbr64":
                return None
        return None

    def resumes_unwinding(self, target: int) -> bool:
        """Whether the code at ``target`` runs straight into ``_Unwind_Resume``: the end of a landing pad, which only the
        unwinder enters and which leaves to it again, so that nothing returns there (Itanium C++ ABI, level I: 1.5.2).
        """
        for instruction in self.decode(target, _LANDING_PAD_BYTES):
            if instruction.flow is Flow.CALL and instruction.target is not None:
                if (self.symbols.name_at(instruction.target) or self.stub(instruction.target)) == "_Unwind_Resume":
                    return True
            elif instruction.flow is not Flow.NEXT and instruction.flow is not Flow.CALL:
                return False
        return False

    def never_returns(self, target: int) -> bool:
        """Whether the function at ``target``, or behind the stub there, is known by its name never to return."""
        name = self.symbols.name_at(target) or self.stub(target) or ""
        return noreturn.is_known(name)
