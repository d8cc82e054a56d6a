"""Functions that are chosen when the program starts (STT_GNU_IFUNC): what there is to choose from.

The symbol leads to a resolver, which returns the address of an implementation (GNU gABI supplement, "IFUNC"). It computes the
addresses of all of them, by a lea relative to rip, or as an immediate where the program has a fixed address.
"""

from __future__ import annotations

from coral.elf.program import Program
from coral.elf.symbols import Function
from coral.model.addresses import Vaddr

_LONGEST_BYTES = 4096
_MOST_NAMES = 16


def implementations(program: Program, resolver: Function) -> list[Vaddr]:
    """The functions whose addresses a resolver computes, by address: begun by a symbol, or by a frame where names are gone.

    Args:
        program: The image.
        resolver: The symbol, which must be ``indirect``.
    """
    end = resolver.end if resolver.size_bytes else program.symbols.next_start(resolver.vaddr)
    size = min(end - resolver.vaddr, _LONGEST_BYTES) if end is not None else _LONGEST_BYTES
    found = set()
    for instruction in program.decode(resolver.vaddr, size):
        code = instruction.code
        # REX.W lea reg, [rip + disp32]; mov r32, imm32, with or without REX.B
        if len(code) == 7 and code[0] & 0xF8 == 0x48 and code[1] == 0x8D and code[2] & 0xC7 == 0x05:
            found.add(instruction.end + int.from_bytes(code[3:], "little", signed=True))
        elif not program.file.pie and len(code) in (5, 6) and code[-5] & 0xF8 == 0xB8:
            found.add(int.from_bytes(code[-4:], "little"))
    return sorted(Vaddr(each) for each in found if program.file.executable(each) and _begins(program, each))


def _begins(program: Program, vaddr: int) -> bool:
    return bool(program.symbols.at(vaddr)) or program.frames.size_at(vaddr) > 0


def advice(program: Program, resolver: Function) -> str:
    """What to probe instead of the symbol, as a sentence."""
    found = implementations(program, resolver)
    names = [name for vaddr in found if (name := program.symbols.name_at(vaddr)) and name != resolver.name]
    nameless = len(found) - len(names)
    if not found:
        return "Name one of its callers."
    sentences = []
    if names:
        sentences.append(f"Name the implementation that this processor gets, one of: {', '.join(names[:_MOST_NAMES])}.")
    if nameless:
        of_them = "of them" if names else "of its implementations"
        sentences.append(f"{nameless} {of_them} have no names here: install the debug symbols of {program.file.path}.")
    return " ".join(sentences)
