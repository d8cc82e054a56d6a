"""A colony of a test's own, in this process, over real database files; it can be stopped as a crash would stop it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from coral.client.colony import ColonyClient
from coral.colony.daemon import Colony
from coral.config.settings import ColonySettings
from coral.wire import convert
from coral.wire._generated.colony.v1 import debug_pb2

SETTINGS: dict[str, Any] = {"heartbeat_ms": 100, "offline_after_ms": 1000, "min_free_bytes": 0}


@asynccontextmanager
async def running_colony(
    state_dir: Path, *, listen: str = "127.0.0.1:0", grace_s: float = 1.0, **settings: Any
) -> AsyncIterator[str]:
    """Serves over ``state_dir``; yields HOST:PORT."""
    colony = Colony(ColonySettings(listen=listen, state_dir=state_dir, **{**SETTINGS, **settings}), grace_s=grace_s)
    address = await colony.start()
    stop = asyncio.Event()
    running = asyncio.create_task(colony.run(stop))
    try:
        yield address
    finally:
        stop.set()
        await running


def attach_request(
    service: str = "checkout", function: str = "main.Pay", *, seconds: float = 30.0, **fields: Any
) -> debug_pb2.AttachUprobeRequest:
    """A request to attach."""
    return debug_pb2.AttachUprobeRequest(
        service_name=service, function_name=function, duration=convert.duration(round(seconds * 1e9)), **fields
    )


async def eventually(look: Callable[[], Awaitable[Any]], *, within_s: float = 10.0) -> Any:
    """The first true value of ``look``, asked again and again: the colony tells nobody when it has stored something."""
    async with asyncio.timeout(within_s):
        while not (found := await look()):  # noqa: ASYNC110  (what is looked at is behind gRPC)
            await asyncio.sleep(0.02)
        return found


async def ended(client: ColonyClient, session_id: str, *, within_s: float = 10.0) -> debug_pb2.DebugSession:
    """The session, once it has ended."""

    async def look() -> debug_pb2.DebugSession | None:
        session = await client.session(session_id)
        return session if session.status not in ("pending", "active") else None

    found: debug_pb2.DebugSession = await eventually(look, within_s=within_s)
    return found


async def stored(client: ColonyClient, session_id: str, count: int) -> debug_pb2.DebugSession:
    """The session, once so many events are stored."""

    async def look() -> debug_pb2.DebugSession | None:
        session = await client.session(session_id)
        return session if session.ledger.stored >= count else None

    found: debug_pb2.DebugSession = await eventually(look)
    return found


async def table(client: ColonyClient, sql: str) -> list[dict[str, Any]]:
    """The rows of a query on the colony's tables."""
    found, _ = await client.query_database(sql)
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows
