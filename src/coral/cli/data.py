"""Removes data, and shows what went."""

from __future__ import annotations

from coral.cli.listings import emit_items
from coral.cli.options import Globals
from coral.cli.output import emit_document, narrate
from coral.cli.tables import emit_table
from coral.cli.times import local_clock, rfc3339
from coral.client.audit import AuditClient
from coral.client.colony import ColonyClient
from coral.wire._generated.colony.v1 import audit_pb2
from coral.wire.convert import timestamp_ns


async def show_purge(options: Globals, request: audit_pb2.PurgeDataRequest) -> None:
    """Removes what a request says, or only looks, and prints the sessions."""
    async with ColonyClient(options.endpoint()) as colony:
        found = await AuditClient(colony).purge(request)
    items = [
        {
            "session_id": session.session_id,
            "service_name": session.service_name,
            "function_name": session.function_name,
            "ended_at": rfc3339(timestamp_ns(session.ended_at)),
            "events": session.event_count,
        }
        for session in found.sessions
    ]
    if options.form == "json":
        emit_document(
            {
                "dry_run": request.dry_run,
                "sessions": found.session_count,
                "events": found.event_count,
                "freed_bytes": found.freed_bytes,
                "items": items,
            }
        )
    elif options.form == "jsonl":
        emit_items(options, items)
    elif items:
        rows = [
            (
                session.session_id,
                session.service_name,
                session.function_name,
                local_clock(timestamp_ns(session.ended_at), decimals=0, date=True).rstrip("."),
                f"{session.event_count:,}",
            )
            for session in found.sessions
        ]
        emit_table(
            ("ID", "SERVICE", "FUNCTION", "ENDED", "EVENTS"),
            rows,
            right=("EVENTS",),
            whole=("ID", "ENDED"),
            color=options.color,
        )
    sessions = "1 session" if found.session_count == 1 else f"{found.session_count:,} sessions"
    what = f"{sessions} with {found.event_count:,} events"
    if request.dry_run:
        narrate(f"{what} would be removed.")
    elif not found.session_count:
        narrate("No session is removed.")
    else:
        smaller = f", and are {found.freed_bytes:,} bytes smaller" if found.freed_bytes else ""
        narrate(f"{what} removed. The colony's files were copied anew without them{smaller}.")
