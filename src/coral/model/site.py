"""Where a function is probed, and why there."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from coral.model.addresses import FileOffset


class SiteKind(enum.StrEnum):
    """What a hit at a site means."""

    ENTRY = "entry"
    RETURN = "return"
    TAIL = "tail"


class Method(enum.StrEnum):
    """How the returns of an instance are seen."""

    RET_SITES = "ret_sites"
    ENTRY_ONLY = "entry_only"


class Pairing(enum.StrEnum):
    """What identifies a call between its entry and its return."""

    STACK_POINTER = "sp"
    """C and its kin: the stack pointer at entry, which RET finds again."""
    GO = "go"
    """Go: the goroutine (r14) and how deep in its stack, since stacks move."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One instruction that carries a probe.

    Attributes:
        offset: Of the instruction in the file.
        kind: What a hit means.
        reason: Why this instruction, in words.
        condition: For a conditional jump out of the function, its x86 condition code (0 to 15); -1 when always taken.
        to: For a tail jump, the name of the function that goes on, when it is known.
        original: The bytes of the instruction, as the file has them.
    """

    offset: FileOffset
    kind: SiteKind
    reason: str
    condition: int = -1
    to: str = ""
    original: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionPlan:
    """How one function of one image is probed; what the kernel layer attaches.

    Attributes:
        name: Of the function in its source, as much of it as tells it from others: parameters where it is overloaded.
        library: Base name of the file it is in, when that is not the program itself; else empty.
        language: ``c``, ``cpp``, ``rust`` or ``go``.
        pairing: What identifies a call.
        method: ``RET_SITES``, or ``ENTRY_ONLY`` with ``reason``.
        reason: Why only entries are seen; empty otherwise.
        sites: Entry first, then exits by offset. Clones add their own entries and exits.
        goid_offset: How far behind a goroutine's start its number is, in bytes; 0 when that is not known, or there is none.
        called: What the code at its addresses is called: for each function that has a symbol there, all ways of writing it.
        all_called: Whether that is complete; of very many names it is not.
        exported: Whether other files can call it by name.
    """

    name: str
    language: str
    pairing: Pairing
    method: Method
    reason: str
    sites: tuple[Site, ...]
    library: str = ""
    goid_offset: int = 0
    called: tuple[tuple[str, ...], ...] = ()
    all_called: bool = True
    exported: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """All that its code is called."""
        return tuple(name for ways in self.called for name in ways)

    @property
    def entries(self) -> tuple[Site, ...]:
        """The sites at which calls are counted."""
        return tuple(site for site in self.sites if site.kind is SiteKind.ENTRY)

    @property
    def exits(self) -> tuple[Site, ...]:
        """The sites at which calls end."""
        return tuple(site for site in self.sites if site.kind is not SiteKind.ENTRY)
