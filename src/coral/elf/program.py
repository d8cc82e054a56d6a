"""Everything that the analysis of a function asks of the file around it."""

from __future__ import annotations

import struct
from functools import cached_property

import numpy as np

from coral.elf.arch import Architecture, Flow, Instruction
from coral.elf.arch.x86_64 import X8664
from coral.elf.file import ElfFile
from coral.elf.frames import FrameTable
from coral.elf.gotable import GoTable
from coral.elf.symbols import SymbolTable
from coral.model.addresses import Vaddr

# Names that ISO C and POSIX reserve, glibc's, GCC's runtime's, Go's: no program may give them to something else. A name that is missing here costs nothing but precision: see flow.py.
_NEVER_RETURN = frozenset(
    "abort exit _exit _Exit quick_exit __stack_chk_fail __assert_fail __assert __assert_perror_fail __fortify_fail __chk_fail "
    "longjmp _longjmp siglongjmp __longjmp_chk pthread_exit thrd_exit __cxa_throw __cxa_rethrow "
    "__cxa_bad_cast __cxa_bad_typeid __cxa_throw_bad_array_new_length _Unwind_Resume __libc_fatal __libc_start_main "
    "runtime.throw runtime.fatal runtime.fatalthrow runtime.gopanic runtime.panicwrap runtime.Goexit runtime.goexit1 "
    "runtime.sigpanic runtime.badmorestackg0 runtime.exit".split()
)
_NEVER_RETURN_PREFIXES = ("runtime.panic", "runtime.goPanic")


class Reference:
    """Kinds of references to code."""

    CALL = "call"
    JUMP = "jump"
    ADDRESS = "address"


class Program:
    """One image: its file, the tables in it, and questions about addresses."""

    def __init__(self, file: ElfFile) -> None:
        self.file = file
        self.arch: Architecture = X8664()
        self.symbols = SymbolTable(file)
        self.frames = FrameTable(file)
        self._references: dict[int, list[tuple[str, Vaddr]]] = {}

    @cached_property
    def go(self) -> GoTable:
        """The Go part of it; false when there is none."""
        return GoTable(self.file, self.symbols.text or Vaddr(0))

    def decode(self, vaddr: int, size_bytes: int, count: int = 0) -> list[Instruction]:
        """Up to ``count`` instructions (0: all) of the ``size_bytes`` at ``vaddr``, until one does not decode."""
        return self.arch.decode(self.file.read(vaddr, size_bytes), Vaddr(vaddr), count)

    def stub(self, vaddr: int) -> str | None:
        """The name behind a PLT stub (``[endbr64] [bnd] jmp *slot(%rip)``) at ``vaddr``; None when there is no stub."""
        for instruction in self.decode(vaddr, 16, 2):
            if instruction.flow is Flow.INDIRECT:
                _, slot = self.arch.jump_operand(instruction, self.arch.initial)
                return self.file.slots.get(slot) if slot is not None else None
            if instruction.mnemonic != "endbr64":
                return None
        return None

    def never_returns(self, target: int) -> bool:
        """Whether the function at ``target``, or behind the stub there, is known by its name never to return."""
        name = self.symbols.name_at(target) or self.stub(target) or ""
        return name in _NEVER_RETURN or name.startswith(_NEVER_RETURN_PREFIXES)

    def references(self, target: int) -> list[tuple[str, Vaddr]]:
        """Every instruction that names ``target`` by a 32-bit distance, with its kind and the address behind the distance.

        The code is not decoded for that: at every byte, is the distance there one to ``target``? So there may be one too
        many (once in a few hundred megabytes), never one too few, apart from 8-bit jumps from within 128 bytes.
        """
        known = self._references.get(target)
        if known is not None:
            return known
        found = self._references[target] = []
        for segment in self.file.executable_segments:
            start, stop = segment.file_offset, segment.file_offset + segment.file_size_bytes
            code = memoryview(self.file.data)[start:stop]
            for shift in range(4):
                count = (len(code) - shift) // 4
                distances = np.frombuffer(code, "<i4", count, shift)
                behind = np.arange(count, dtype="i8") * 4 + (segment.vaddr + shift + 4)
                for index in np.flatnonzero(distances == target - behind):
                    at = int(index) * 4 + shift
                    before = bytes(code[max(0, at - 2) : at])
                    jcc = len(before) == 2 and before[0] == 0x0F and before[1] & 0xF0 == 0x80
                    kind = (
                        Reference.CALL
                        if before[-1:] == b"\xe8"
                        else Reference.JUMP
                        if before[-1:] == b"\xe9" or jcc
                        else Reference.ADDRESS
                    )
                    found.append((kind, Vaddr(int(behind[index]))))
        return found

    def stored(self, target: int) -> bool:
        """Whether any data of the file (pointers, relocations) holds the address ``target``."""
        return self.file.data.find(struct.pack("<Q", target)) >= 0
