"""What can be said of functions without attaching anything: a list of them, and what an attach to one would do."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from coral.model.addresses import FileOffset, Vaddr
from coral.model.site import Site


class Probeable(enum.StrEnum):
    """Whether a function can be probed."""

    YES = "yes"
    """Entries and returns."""
    PARTLY = "partly"
    """Entries alone."""
    NO = "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a function can be probed, and why not.

    Attributes:
        probeable: The answer.
        reason: Why it is not yes, or what a yes is worth; a sentence without its subject, the function.
        exact: Whether it is final; else it is by the tables of the file alone, and the instructions were not decoded.
    """

    probeable: Probeable
    reason: str
    exact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionPage:
    """Functions in columns of equal length, since there may be 100,000 of them.

    Attributes:
        names: Symbols, made printable.
        demangled: As the source has them; empty where that is the symbol.
        languages: Indexes into ``language_words``.
        verdicts: Indexes into ``verdict_values``.
        language_words: ``c``, ``cpp``, ``rust``, ``go``.
        verdict_values: The different verdicts.
        matches: How many functions match, on all pages together.
        next_offset: Of the next page; 0 when this is the last one.
    """

    names: list[str]
    demangled: list[str]
    languages: list[int]
    verdicts: list[int]
    language_words: list[str]
    verdict_values: list[Verdict]
    matches: int
    next_offset: int

    @property
    def undecided(self) -> int:
        """How many of them were not decoded."""
        open_ = {index for index, verdict in enumerate(self.verdict_values) if not verdict.exact}
        return sum(1 for verdict in self.verdicts if verdict in open_) if open_ else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionAddress:
    """One place where a function begins.

    Attributes:
        vaddr: In the file's own numbering.
        file_offset: In the file.
        size_bytes: Of it.
        symbol: Its name in the file.
        source_file: Of a static function, as far as the symbol table tells it; else empty.
        also_named: Other functions that share the address.
    """

    vaddr: Vaddr
    file_offset: FileOffset
    size_bytes: int
    symbol: str
    source_file: str
    also_named: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedSite:
    """A probe site with what a person wants to see of it.

    Attributes:
        site: Where and why.
        vaddr: Of the instruction, in the file's own numbering.
        instruction: Its text.
        emulated: Whether the kernel emulates it under a probe; else it is stepped over, which costs a second trap.
    """

    site: Site
    vaddr: Vaddr
    instruction: str
    emulated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionExplanation:
    """What an attach to a function of one image would do.

    Attributes:
        name: As events will call it.
        verdict: Whether it can be probed.
        hint: The next step when it cannot; else empty.
        language: ``c``, ``cpp``, ``rust`` or ``go``; empty when it is not known.
        method: How returns would be seen; empty when nothing would be attached.
        pairing: What would identify a call; empty likewise.
        addresses: Where it begins.
        sites: What would be attached, entries first.
        symbol_sources: Which tables the symbols of its file came from.
        notes: Why other places of symbols were not used, as sentences.
        exported: Whether other files can call it by name.
    """

    name: str
    verdict: Verdict
    hint: str
    language: str
    method: str
    pairing: str
    addresses: tuple[FunctionAddress, ...]
    sites: tuple[ExplainedSite, ...]
    symbol_sources: tuple[str, ...]
    notes: tuple[str, ...]
    exported: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrapCost:
    """What a hit costs on this host, in ns of the probed program's CPU time.

    Attributes:
        emulated_ns: A breakpoint on an instruction that the kernel emulates.
        stepped_ns: On one that it steps over.
        pairing_ns: What an exit adds to that: finding its entry.
    """

    emulated_ns: int
    stepped_ns: int
    pairing_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CostForecast:
    """What a call is expected to cost: the cheapest and the dearest way through the function.

    Attributes:
        lowest_ns: With the cheapest of its entries and of its exits.
        highest_ns: With the dearest of them.
    """

    lowest_ns: int
    highest_ns: int


def forecast(sites: tuple[ExplainedSite, ...], cost: TrapCost) -> CostForecast | None:
    """What a call costs by its sites: one entry, and one exit where exits are probed; None without sites."""
    entries = [cost.emulated_ns if each.emulated else cost.stepped_ns for each in sites if each.site.kind == "entry"]
    exits = [
        (cost.emulated_ns if each.emulated else cost.stepped_ns) + cost.pairing_ns
        for each in sites
        if each.site.kind != "entry"
    ] or [0]
    if not entries:
        return None
    return CostForecast(lowest_ns=min(entries) + min(exits), highest_ns=max(entries) + max(exits))
