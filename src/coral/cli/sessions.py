"""Lists, shows and stops sessions."""

from __future__ import annotations

import asyncio
import time

from coral.cli.attach import SETTLE_S, show_session
from coral.cli.documents import session_document
from coral.cli.listings import emit_items
from coral.cli.options import Globals
from coral.cli.output import narrate
from coral.cli.snapshot import is_settled
from coral.cli.tables import emit_table
from coral.cli.times import local_moment
from coral.client.colony import ColonyClient
from coral.wire._generated.colony.v1 import debug_pb2
from coral.wire.convert import timestamp_ns

_AT_ONCE = 8
_POLL_S = 0.1


async def show_sessions(options: Globals, *, service: str, status: str) -> None:
    """Prints the sessions, of one service or in one status if given."""
    async with ColonyClient(options.endpoint()) as colony:
        sessions = [session async for session in colony.sessions(service_name=service, status=status)]
        if options.form == "table":
            _table(options, sessions)
            return
        slots = asyncio.Semaphore(_AT_ONCE)

        async def results(session: debug_pb2.DebugSession) -> debug_pb2.GetDebugResultsResponse:
            async with slots:
                return await colony.results(session.session_id)

        found = await asyncio.gather(*map(results, sessions))  # not a TaskGroup: its errors come in groups
    items = [session_document(*pair) for pair in zip(sessions, found, strict=True)]
    emit_items(options, items)


async def show_one(options: Globals, session_id: str) -> None:
    """Prints one session."""
    async with ColonyClient(options.endpoint()) as colony:
        session = await colony.session(session_id)
        results = await colony.results(session_id, form="histogram")
    show_session(options, session, results)


async def stop_one(options: Globals, session_id: str) -> None:
    """Ends one session, and prints it once its final ledger has arrived, or after a while."""
    give_up_s = time.monotonic() + SETTLE_S
    async with ColonyClient(options.endpoint()) as colony:
        response = await colony.detach(session_id)
        if response.error:
            narrate(f"Warning: {response.error}")
        while True:
            session = await colony.session(session_id)
            if is_settled(session) or time.monotonic() >= give_up_s:
                break
            await asyncio.sleep(_POLL_S)
        results = await colony.results(session_id, form="histogram")
    show_session(options, session, results)


def _table(options: Globals, sessions: list[debug_pb2.DebugSession]) -> None:
    if not sessions:
        narrate("No session. Start one with `coral debug attach SERVICE -f FUNCTION`.")
        return
    rows = []
    for session in sessions:
        ledger = session.ledger
        lost = ledger.ring_lost + ledger.queue_dropped + ledger.rate_limited
        rows.append(
            (
                session.session_id,
                session.service_name,
                session.function_name,
                session.status,
                local_moment(timestamp_ns(session.started_at), now_ns=time.time_ns()),
                f"{ledger.returned + ledger.unseen:,}",
                f"{lost:,}" + ("?" if ledger.unknown_intervals else ""),
                session.requested_by,
            )
        )
    emit_table(
        ("ID", "SERVICE", "FUNCTION", "STATUS", "STARTED", "CALLS", "LOST", "BY"),
        rows,
        right=("CALLS", "LOST"),
        whole=("ID", "STATUS", "STARTED", "CALLS", "LOST"),
        spare=("BY",),
        color=options.color,
    )
