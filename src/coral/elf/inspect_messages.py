"""Lists and explanations on the socket between ``parser`` and ``worker``: to JSON and back.

Names go as one text with line ends between them, and numbers as bytes: made and checked a hundred times quicker than as many
texts and numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from coral.elf.messages import site_to_json
from coral.elf.shape import shaped
from coral.model.inspection import FunctionExplanation, FunctionPage, Verdict

_NUMBER = "<u4"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """A ``FunctionPage`` as JSON has it."""

    count: int
    names: str
    demangled: str
    languages: bytes
    verdicts: bytes
    language_words: list[str]
    verdict_values: list[Verdict]
    matches: int
    next_offset: int


def page_to_json(page: FunctionPage) -> dict[str, Any]:
    """A ``FunctionPage`` as JSON."""
    return {
        "count": len(page.names),
        "names": "\n".join(page.names),  # printable, so without line ends of their own
        "demangled": "\n".join(page.demangled),
        "languages": np.array(page.languages, _NUMBER).tobytes().hex(),
        "verdicts": np.array(page.verdicts, _NUMBER).tobytes().hex(),
        "language_words": page.language_words,
        "verdict_values": [dataclasses.asdict(verdict) for verdict in page.verdict_values],
        "matches": page.matches,
        "next_offset": page.next_offset,
    }


def page_from_json(value: object) -> FunctionPage:
    """The reverse of ``page_to_json``.

    Raises:
        ValueError: It is none: the columns differ in length, or an index is out of range.
    """
    columns = shaped(_Page, value)
    page = FunctionPage(
        names=columns.names.split("\n") if columns.count else [],
        demangled=columns.demangled.split("\n") if columns.count else [],
        languages=_numbers(columns.languages, columns.language_words),
        verdicts=_numbers(columns.verdicts, columns.verdict_values),
        language_words=columns.language_words,
        verdict_values=columns.verdict_values,
        matches=columns.matches,
        next_offset=columns.next_offset,
    )
    if {len(page.names), len(page.demangled), len(page.languages), len(page.verdicts)} != {columns.count}:
        raise ValueError("the columns of a list differ in length")
    return page


def _numbers(data: bytes, words: Sequence[object]) -> list[int]:
    """The numbers in a column; each stands for one of ``words``."""
    numbers: list[int] = np.frombuffer(data, _NUMBER).tolist()
    if numbers and max(numbers) >= len(words):
        raise ValueError("a number in a list stands for nothing")
    return numbers


def explanation_to_json(explanation: FunctionExplanation) -> dict[str, Any]:
    """A ``FunctionExplanation`` as JSON."""
    value = dataclasses.asdict(explanation)
    for explained, each in zip(value["sites"], explanation.sites, strict=True):
        explained["site"] = site_to_json(each.site)
    return value


def explanation_from_json(value: object) -> FunctionExplanation:
    """The reverse of ``explanation_to_json``.

    Raises:
        ValueError: It is none.
    """
    return shaped(FunctionExplanation, value)
