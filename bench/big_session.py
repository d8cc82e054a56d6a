"""A session of millions of events: how soon are its results there, and the first, middle and last page of its events?"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil

from bench.ingest import SESSION_ID, Store
from coral.client.colony import ColonyClient
from coral.colony.daemon import Colony
from coral.config.settings import ColonySettings
from coral.telemetry import logs
from coral.wire import convert
from coral.wire._generated.colony.v1 import debug_pb2

ROWS = 50_000_000
_COLLECTORS = 8
_PER_BATCH = 10_000
_EVERY_NS = 12_000 * _COLLECTORS
_GOAL_S = 1.0
_TIMES = 5


def run(*, rows: int) -> bool:
    """Builds the session as a colony does, then asks a colony for it; whether everything came within a second.

    Args:
        rows: How many events it has.
    """
    logs.configure(verbosity=logs.QUIET)
    return asyncio.run(_run(rows))


async def _run(rows: int) -> bool:
    print(f"big session: {rows:,} events of {_COLLECTORS} collectors; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="coral-big-", dir="/var/tmp") as folder:
        began_ns = await _build(Path(folder), rows)
        size = (Path(folder) / "events.duckdb").stat().st_size
        print(f"  on disk    {size / 1e6:,.0f} MB, {size / rows:.1f} bytes an event")
        colony = Colony(ColonySettings(listen="127.0.0.1:0", state_dir=Path(folder), min_free_bytes=0, keep_free_bytes=0))
        began = time.monotonic()
        address, stop = await colony.start(), asyncio.Event()
        print(f"  start      {time.monotonic() - began:.2f} s until the colony serves")
        running = asyncio.create_task(colony.run(stop))
        try:
            async with ColonyClient(address) as client:
                good = await _ask(client, rows, began_ns)
        finally:
            stop.set()
            await running
    print(
        f"  memory     {psutil.Process().memory_info().rss >> 20} MiB now, "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB at most"
    )
    return good


async def _build(folder: Path, rows: int) -> int:
    store = Store(folder, collectors=_COLLECTORS)
    await store.open()
    began_ns = time.time_ns()
    cpu_s, wall_s = time.process_time(), time.monotonic()
    each = rows // _COLLECTORS
    await asyncio.gather(
        *(
            store.put(store.messages(one, rows=each, per_batch=_PER_BATCH, began_ns=began_ns, every_ns=_EVERY_NS))
            for one in range(_COLLECTORS)
        )
    )
    await store.end()
    cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
    print(f"  built in   {wall_s:.0f} s with {cpu_s:.0f} s of CPU, the making of the events included")
    print(f"  memory     {psutil.Process().memory_info().rss >> 20} MiB after that")
    await store.close()
    return began_ns


async def _ask(client: ColonyClient, rows: int, began_ns: int) -> bool:
    end_ns = began_ns + rows // _COLLECTORS * _EVERY_NS
    middle_ns = (began_ns + end_ns) // 2

    async def results() -> int:
        found = await client.results(SESSION_ID)
        return len(found.slow_outliers) if found.ledger.stored == rows else 0

    async def events(since_ns: int | None, until_ns: int | None, token: str = "") -> debug_pb2.QueryUprobeEventsResponse:
        return await client.query_events(
            debug_pb2.QueryUprobeEventsRequest(
                session_id=SESSION_ID,
                start_time=convert.timestamp(since_ns) if since_ns is not None else None,
                end_time=convert.timestamp(until_ns) if until_ns is not None else None,
                page_token=token,
            )
        )

    async def count(since_ns: int | None, until_ns: int | None) -> int:
        return len((await events(since_ns, until_ns)).events)

    async def second() -> int:
        first = await events(middle_ns, None)
        return len((await events(middle_ns, None, first.next_page_token)).events)

    asked: list[tuple[str, Callable[[], Awaitable[int]], int]] = [
        ("results (session get)", results, 10),
        ("first page", lambda: count(None, None), 1000),
        ("a page from the middle on", lambda: count(middle_ns, None), 1000),
        ("a second in the middle", lambda: count(middle_ns, middle_ns + 10**9), 1000),
        ("two pages from the middle on", second, 1000),
        ("last page", lambda: count(end_ns - 1000 // _COLLECTORS * _EVERY_NS, None), 1000),
    ]
    good = True
    for name, ask, expected in asked:
        took = []
        for _ in range(_TIMES):
            began = time.monotonic()
            got = await ask()
            took.append(time.monotonic() - began)
            good = good and got == expected
        print(f"  {name:30} median {statistics.median(took) * 1000:7.1f} ms, worst {max(took) * 1000:7.1f} ms; {got:,} came")
        good = good and max(took) < _GOAL_S
    return good
