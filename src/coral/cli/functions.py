"""Prints the functions of a service."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from coral.cli.documents import Document, list_document
from coral.cli.options import Globals
from coral.cli.output import emit_document, emit_line, narrate
from coral.cli.tables import emit_table
from coral.client.colony import ColonyClient
from coral.wire._generated.colony.v1 import inspect_pb2

_PAGE = 20_000
"""Functions in one request; the fewer requests the better, and an answer has to fit a message."""
_EXACT_PAGE = 2_000
_EXACT_BUDGET_MS = 5_000
_DRAWN = 2_000
"""More rows than this are written as plain columns on a terminal too: drawing takes a millisecond a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a list is to show.

    Attributes:
        service: Whose functions.
        pattern: ``[LIBRARY!]PATTERN``.
        library: Base name of the library they are in.
        all_libraries: Those of all libraries too.
        limit: How many; 0 for all.
        page_token: Where to go on; empty for the beginning.
        exact: Whether every one of them is to be decoded.
    """

    service: str
    pattern: str
    library: str
    all_libraries: bool
    limit: int
    page_token: str
    exact: bool


Page = inspect_pb2.ListFunctionsResponse


async def show_functions(options: Globals, wanted: Wanted) -> None:
    """Prints the functions that are wanted, and says on stderr what else there is."""
    async with ColonyClient(options.endpoint()) as colony:
        pages = [page async for page in _pages(colony, wanted)]
    if options.form == "json":
        items = [item for page in pages for part in page.images for item in function_documents(part)]
        emit_document(list_document(items, pages[-1].next_page_token))
    elif options.form == "jsonl":
        for page in pages:
            for part in page.images:
                for item in function_documents(part):
                    emit_line(item)
    else:
        _table(options, wanted, pages)
    _tell(wanted, pages)


def function_documents(part: inspect_pb2.ImageFunctions) -> Iterator[Document]:
    """An item for each function of one image."""
    table = part.functions
    verdicts = [(verdict.probeable, verdict.reason, verdict.exact) for verdict in table.verdicts]
    languages = list(table.languages)
    image_id, path, library = part.image.image_id, part.image.path, part.image.library
    for name, demangled, language, verdict in zip(table.name, table.demangled, table.language, table.verdict, strict=True):
        probeable, reason, exact = verdicts[verdict]
        yield {
            "name": name,
            "demangled": demangled or name,
            "library": library,
            "language": languages[language],
            "probeable": probeable,
            "reason": reason,
            "exact": exact,
            "image_id": image_id,
            "path": path,
        }


async def _pages(colony: ColonyClient, wanted: Wanted) -> AsyncIterator[Page]:
    token, told = wanted.page_token, 0
    while True:
        size = _EXACT_PAGE if wanted.exact else _PAGE
        if wanted.limit:
            size = min(size, wanted.limit - told)
        request = inspect_pb2.ListFunctionsRequest(
            service_name=wanted.service,
            pattern=wanted.pattern,
            library=wanted.library,
            all_libraries=wanted.all_libraries,
            page_size=size,
            page_token=token,
        )
        page = await colony.functions(request)
        if wanted.exact:
            request.budget_ms, request.spend_again = _EXACT_BUDGET_MS, True
            page = await _decoded(colony, request, page)
        yield page
        told += sum(len(part.functions.name) for part in page.images)
        token = page.next_page_token
        if not token or (wanted.limit and told >= wanted.limit):
            return


async def _decoded(colony: ColonyClient, request: inspect_pb2.ListFunctionsRequest, page: Page) -> Page:
    """The same page once all that a list decodes is decoded."""
    left = _undecided(page)
    while left:
        page = await colony.functions(request)
        before, left = left, _undecided(page)
        if left >= before:  # the rest is too large for a list
            break
        narrate(f"Decoding: {left:,} functions left on this page.")
    return page


def _undecided(page: Page) -> int:
    return sum(part.undecided for part in page.images)


def _table(options: Globals, wanted: Wanted, pages: Sequence[Page]) -> None:
    shown = {part.image.image_id: part.image for page in pages for part in page.images if part.functions.name}
    several = len({image.path for image in shown.values()}) > 1 or len(shown) > 1
    libraries = any(image.library for image in shown.values())
    rows = []
    for page in pages:
        for part in page.images:
            where = f"{part.image.path} {part.image.image_id.partition(':')[2][:8]}"
            for item in function_documents(part):
                row = [item["demangled"], item["language"], item["probeable"], item["reason"]]
                if libraries:
                    row.insert(1, item["library"] or "-")
                if several and not libraries:
                    row.insert(1, where)
                rows.append(row)
    if not rows:
        return
    columns = ["NAME", "LANGUAGE", "PROBEABLE", "REASON"]
    if libraries:
        columns.insert(1, "LIBRARY")
    elif several:
        columns.insert(1, "IMAGE")
    drawn = sys.stdout.isatty() and len(rows) <= _DRAWN
    emit_table(columns, rows, whole=("PROBEABLE",), spare=("LANGUAGE",), color=options.color, plain=not drawn)


def _tell(wanted: Wanted, pages: Sequence[Page]) -> None:
    """Says what was left out, and how to see it."""
    for warning in pages[0].warnings:
        narrate(f"Warning: {warning}")
    for part in pages[0].images:
        if part.image.error:
            narrate(f"{part.image.path} ({_processes(part.image.instances)}) cannot be read: {part.image.error}")
    told = sum(len(part.functions.name) for page in pages for part in page.images)
    if not told:
        glob = wanted.pattern and ("*" in wanted.pattern or "?" in wanted.pattern)
        narrate(
            "No function matches."
            + (f" A glob is for the whole name: try '*{wanted.pattern.strip('*')}*'." if glob else "")
            + ("" if glob else " PATTERN is part of a name; upper and lower case are two." if wanted.pattern else "")
        )
        return
    if pages[-1].next_page_token:
        narrate(f"There are more than these {told:,} functions: --all shows them, a PATTERN narrows them down.")
    undecided = sum(_undecided(page) for page in pages)
    if undecided and not wanted.exact:
        narrate(
            f"{undecided:,} of {told:,} functions were not decoded, so that it is not certain that they can be probed: "
            "narrow them down, or add --exact."
        )


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count:,} processes"
