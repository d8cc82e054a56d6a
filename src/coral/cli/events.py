"""Prints the stored events of a session, page by page as they arrive."""

from __future__ import annotations

import json
from collections.abc import Callable

from coral.cli.documents import event_document
from coral.cli.event_lines import event_line
from coral.cli.options import Globals
from coral.cli.output import emit, emit_line, flush, narrate
from coral.client.colony import ColonyClient
from coral.wire import convert
from coral.wire._generated.colony.v1 import debug_pb2
from coral.wire._generated.mesh.v1 import ebpf_pb2

_Writer = Callable[[ebpf_pb2.UprobeEvent, str], None]
_PAGE = 5_000  # half of what the colony allows: with long arguments, 10,000 events may pass the largest message


async def show_events(options: Globals, session_id: str, *, since_ns: int | None, until_ns: int | None, limit: int) -> None:
    """Prints events in the order of their time.

    Args:
        options: The global options.
        session_id: Of which session.
        since_ns: From this time on, wall clock; None for its start.
        until_ns: Before this time; None for its end.
        limit: How many at most; 0 for all.
    """
    array = _JsonArray() if options.form == "json" else None
    write: _Writer = array or (_write_line if options.form == "jsonl" else _write_text)
    token = ""
    left = limit
    written = 0
    async with ColonyClient(options.endpoint()) as colony:
        while True:
            request = debug_pb2.QueryUprobeEventsRequest(
                session_id=session_id,
                start_time=None if since_ns is None else convert.timestamp(since_ns),
                end_time=None if until_ns is None else convert.timestamp(until_ns),
                max_events=min(_PAGE, left) if limit else _PAGE,
                page_token=token,
            )
            page = await colony.query_events(request)
            for event in page.events:
                write(event, session_id)
            flush()
            written += len(page.events)
            left -= len(page.events)
            token = page.next_page_token if page.has_more else ""
            if not token or (limit and left <= 0):
                break
    if array:
        array.close(token)
    elif not written:
        narrate("No events.")
    elif token and options.form == "table":
        narrate(f"These are the first {written:,} events; --limit 0 shows all.")


def _write_text(event: ebpf_pb2.UprobeEvent, session_id: str) -> None:
    document = event_document(event, session_id)
    emit(event_line(document, convert.timestamp_ns(event.timestamp), date=True) + "\n")


def _write_line(event: ebpf_pb2.UprobeEvent, session_id: str) -> None:
    emit_line(event_document(event, session_id))


class _JsonArray:
    """The list document, written item by item: all events of a session may be more than memory holds."""

    def __init__(self) -> None:
        self._before = '{"items": ['

    def __call__(self, event: ebpf_pb2.UprobeEvent, session_id: str) -> None:
        emit(self._before + json.dumps(event_document(event, session_id)))
        self._before = ",\n"

    def close(self, next_page_token: str) -> None:
        """Writes the end."""
        start = self._before if self._before.startswith("{") else ""
        emit(f'{start}], "next_page_token": {json.dumps(next_page_token or None)}}}\n')
