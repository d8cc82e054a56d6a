"""Lists and explanations on the socket between ``parser`` and ``worker``: to JSON and back.

Names go as one text with line ends between them: JSON has that a hundred times quicker than as many texts.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from coral.elf.messages import site_from_json, site_to_json
from coral.model.addresses import FileOffset, Vaddr
from coral.model.inspection import ExplainedSite, FunctionAddress, FunctionExplanation, FunctionPage, Probeable, Verdict


def page_to_json(page: FunctionPage) -> dict[str, Any]:
    """A ``FunctionPage`` as JSON."""
    return {
        "count": len(page.names),
        "names": "\n".join(page.names),  # printable, so without line ends of their own
        "demangled": "\n".join(page.demangled),
        "languages": page.languages,
        "verdicts": page.verdicts,
        "language_words": page.language_words,
        "verdict_values": [dataclasses.asdict(verdict) for verdict in page.verdict_values],
        "matches": page.matches,
        "next_offset": page.next_offset,
    }


def page_from_json(value: dict[str, Any]) -> FunctionPage:
    """The reverse of ``page_to_json``.

    Raises:
        ValueError: The columns differ in length, or an index is out of range.
    """
    count = value["count"]
    columns = {name: value[name].split("\n") if count else [] for name in ("names", "demangled")}
    page = FunctionPage(
        **columns,
        languages=value["languages"],
        verdicts=value["verdicts"],
        language_words=value["language_words"],
        verdict_values=[_verdict(each) for each in value["verdict_values"]],
        matches=value["matches"],
        next_offset=value["next_offset"],
    )
    if {len(page.names), len(page.demangled), len(page.languages), len(page.verdicts)} != {count}:
        raise ValueError("the columns of a list differ in length")
    for numbers, words in ((page.languages, page.language_words), (page.verdicts, page.verdict_values)):
        if count and not 0 <= min(numbers) <= max(numbers) < len(words):
            raise ValueError("a number in a list stands for nothing")
    return page


def explanation_to_json(explanation: FunctionExplanation) -> dict[str, Any]:
    """A ``FunctionExplanation`` as JSON."""
    value = dataclasses.asdict(explanation)
    for explained, each in zip(value["sites"], explanation.sites, strict=True):
        explained["site"] = site_to_json(each.site)
    return value


def explanation_from_json(value: dict[str, Any]) -> FunctionExplanation:
    """The reverse of ``explanation_to_json``."""
    return FunctionExplanation(
        **{
            **value,
            "verdict": _verdict(value["verdict"]),
            "addresses": tuple(_address(each) for each in value["addresses"]),
            "sites": tuple(_site(each) for each in value["sites"]),
            "symbol_sources": tuple(value["symbol_sources"]),
            "notes": tuple(value["notes"]),
        }
    )


def _verdict(value: dict[str, Any]) -> Verdict:
    return Verdict(probeable=Probeable(value["probeable"]), reason=value["reason"], exact=value["exact"])


def _address(value: dict[str, Any]) -> FunctionAddress:
    return FunctionAddress(
        vaddr=Vaddr(value["vaddr"]),
        file_offset=FileOffset(value["file_offset"]),
        size_bytes=value["size_bytes"],
        symbol=value["symbol"],
        source_file=value["source_file"],
        also_named=tuple(value["also_named"]),
    )


def _site(value: dict[str, Any]) -> ExplainedSite:
    return ExplainedSite(
        site=site_from_json(value["site"]),
        vaddr=Vaddr(value["vaddr"]),
        instruction=value["instruction"],
        emulated=value["emulated"],
    )
