"""All functions of an image, narrowed by a pattern, a page at a time, each with whether it can be probed.

Deciding that exactly means to decode the function, which takes milliseconds, and an image may have 100,000. So a page is
given at once, with what the tables of the file say, and ``judge`` decodes as many of its functions as a time budget allows.
Verdicts are kept for as long as the image is.
"""

from __future__ import annotations

import fnmatch
import re
import time
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

from coral.elf import names
from coral.elf.plan import check_tables, plan_functions
from coral.elf.program import Program
from coral.elf.symbols import Function
from coral.model.errors import CoralError, FailedPrecondition
from coral.model.inspection import FunctionPage, Probeable, Verdict
from coral.model.site import Method
from coral.model.text import printable

_T = TypeVar("_T")

MOST_NAME_BYTES = 8 << 20
"""Of the names on one page: it has to fit a message."""
_LONGEST_NAME = 4096
_LARGEST_BYTES = 64 << 10
"""Of a function that is decoded for a list; a larger one could take a list's whole time by itself."""
_PATTERNS = 4
_NONE = -1

_UNDECIDED = Verdict(probeable=Probeable.YES, reason="has not been decoded: this is by the symbol table alone", exact=False)
_LARGE = Verdict(
    probeable=Probeable.YES,
    reason=f"is larger than {_LARGEST_BYTES >> 10} KiB and was not decoded: this is by the symbol table alone",
    exact=False,
)
_YES = Verdict(probeable=Probeable.YES, reason="", exact=True)


class Listing:
    """The functions of one image, in the order of their demangled names.

    Args:
        program: The image.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        go = program.go
        rows = []
        for match in names.all_functions(program.symbols):
            symbol = match.symbol
            name = names.base_name(symbol) if "." in symbol else symbol
            language = "go" if go and go.at(match.functions[0].vaddr) else match.language
            rows.append((_shown(match.demangled), match.functions, _shown(name), language))
        rows.sort(key=lambda row: (row[0], row[1][0].vaddr))
        self._demangled = [row[0] for row in rows]
        self._shown_demangled = ["" if row[0] == row[2] else row[0] for row in rows]
        self._functions = [row[1] for row in rows]
        self._names = [row[2] for row in rows]
        self._sizes = [len(row[0]) + len(row[2]) for row in rows]
        self._language_words = sorted({row[3] for row in rows})
        numbers = {word: number for number, word in enumerate(self._language_words)}
        self._languages = [numbers[row[3]] for row in rows]
        self._verdicts: dict[Verdict, int] = {_UNDECIDED: 0, _LARGE: 1, _YES: 2}
        self._judged = [_NONE] * len(rows)
        self._selections: OrderedDict[str, Sequence[int]] = OrderedDict()

    def page(self, pattern: str, offset: int, limit: int) -> FunctionPage:
        """Functions that match, with the verdicts there are.

        Args:
            pattern: What the name or the symbol contains; with ``*`` or ``?`` in it, also a glob over all of it. ``[`` is
                itself, since Go's generics have it. Upper and lower case are two.
            offset: How many matches to pass over.
            limit: The most there may be on the page; fewer when their names are very long.
        """
        matching, found = self._found(pattern, offset, limit)
        self._fill(found)
        verdicts = _taken(self._judged, found)
        used = sorted(set(verdicts))
        values = list(self._verdicts)
        numbers = {verdict: number for number, verdict in enumerate(used)}
        behind = offset + len(found)
        return FunctionPage(
            names=_taken(self._names, found),
            demangled=_taken(self._shown_demangled, found),
            languages=_taken(self._languages, found),
            verdicts=[numbers[verdict] for verdict in verdicts],
            language_words=self._language_words,
            verdict_values=[values[verdict] for verdict in used],
            matches=matching,
            next_offset=behind if behind < matching else 0,
        )

    def judge(self, pattern: str, offset: int, limit: int, *, budget_s: float) -> int:
        """Decodes functions of a page that were not decoded yet, for about a time.

        Returns:
            How many are left; those that are too large for a list do not count.
        """
        _, found = self._found(pattern, offset, limit)
        self._fill(found)
        open_ = [index for index in found if self._judged[index] == 0]
        until = time.monotonic() + budget_s
        for done, index in enumerate(open_):
            if time.monotonic() > until:
                return len(open_) - done
            self._judged[index] = self._number(self._decoded(self._names[index], self._functions[index]))
        return 0

    def _found(self, pattern: str, offset: int, limit: int) -> tuple[int, Sequence[int]]:
        """How many functions match, and which are on a page."""
        matching = self._selections.get(pattern)
        if matching is None:
            matching = self._selections[pattern] = self._select(pattern)
            while len(self._selections) > _PATTERNS:
                self._selections.popitem(last=False)
        page = matching[offset : offset + limit]
        sizes = _taken(self._sizes, page)
        if sum(sizes) > MOST_NAME_BYTES:
            fit = next(count for count, size in enumerate(accumulate(sizes)) if size > MOST_NAME_BYTES)
            page = page[: max(1, fit)]
        return len(matching), page

    def _select(self, pattern: str) -> Sequence[int]:
        if not pattern:
            return range(len(self._names))
        glob = re.compile(fnmatch.translate(pattern.replace("[", "[[]"))).match if _is_glob(pattern) else None
        both = zip(self._names, self._demangled, strict=True)
        if glob is None:
            return [index for index, (name, source) in enumerate(both) if pattern in source or pattern in name]
        return [
            index
            for index, (name, source) in enumerate(both)
            if pattern in source or pattern in name or glob(source) or glob(name)
        ]

    def _fill(self, found: Sequence[int]) -> None:
        """Gives those that have no verdict yet the one of the tables."""
        for index in found:
            if self._judged[index] == _NONE:
                self._judged[index] = self._number(self._by_tables(self._functions[index]))

    def _number(self, verdict: Verdict) -> int:
        return self._verdicts.setdefault(verdict, len(self._verdicts))

    def _by_tables(self, functions: tuple[Function, ...]) -> Verdict:
        try:
            for function in functions:
                check_tables(self._program, function)
        except FailedPrecondition as error:
            return refused(error)
        large = sum(function.size_bytes for function in functions) > _LARGEST_BYTES
        return _LARGE if large else _UNDECIDED

    def _decoded(self, name: str, functions: tuple[Function, ...]) -> Verdict:
        try:
            plan = plan_functions(self._program, name, functions)
        except CoralError as error:
            return refused(error)
        if plan.method is Method.RET_SITES:
            return _YES
        return entries_only(plan.reason, (name, *(printable(function.name) for function in functions)))


def language_of(program: Program, match: names.Match) -> str:
    """``c``, ``cpp``, ``rust`` or ``go``."""
    return "go" if program.go and program.go.at(match.functions[0].vaddr) else match.language


def refused(error: CoralError) -> Verdict:
    """The verdict of a function that is not attached because of ``error``."""
    return Verdict(probeable=Probeable.NO, reason=error.details.get("reason", error.message.rstrip(".")), exact=True)


def entries_only(reason: str, called: Sequence[str]) -> Verdict:
    """The verdict of a function of which entries alone can be seen.

    Args:
        reason: Of its plan.
        called: The names with which that sentence may begin.
    """
    for name in called:
        reason = reason.removeprefix(f"{name} ")
    return Verdict(probeable=Probeable.PARTLY, reason=reason.rstrip("."), exact=True)


def _taken(column: list[_T], indexes: Sequence[int]) -> list[_T]:
    """The elements of a column at some indexes."""
    if isinstance(indexes, range):
        return column[indexes.start : indexes.stop]
    return [column[index] for index in indexes]


def _is_glob(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern


def _shown(name: str) -> str:
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}..."
    return name if name.isprintable() else printable(name)
