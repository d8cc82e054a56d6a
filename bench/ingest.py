"""From batches as agents send them to rows on the disk: what does an event cost, and does the event loop still come round?"""

from __future__ import annotations

import asyncio
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from coral.colony.book import LiveCollector, LiveSession, SessionBook
from coral.colony.feed import Feed
from coral.colony.ingest import Ingest
from coral.colony.progress import Progress, receive
from coral.colony.store import control
from coral.colony.store.database import Database
from coral.colony.store.schema import CONTROL, EVENTS
from coral.events.batch import Origin, encode, to_batch
from coral.events.record import EVENT
from coral.model.ledger import Ledger
from coral.model.session import Session, Status
from coral.telemetry import logs
from coral.wire._generated.mesh.v1 import ebpf_pb2
from coral.wire.convert import ledger_to

SESSION_ID = "01KBENCH0000000000000000SS"
_LOOK_S = 0.005


class Store:
    """The part of a colony that stores events, over files of its own, with one session of some collectors."""

    def __init__(self, folder: Path, *, collectors: int) -> None:
        self.control = Database(folder / "control.duckdb", CONTROL)
        self.events = Database(folder / "events.duckdb", EVENTS)
        self.book = SessionBook(self.control)
        self.ingest = Ingest(self.events, self.book, min_free_bytes=0)
        now_ns = time.time_ns()
        session = Session(
            session_id=SESSION_ID,
            service_name="checkout",
            function_name="main.Pay",
            agent_id="" if collectors > 1 else "agent-0",
            started_at_ns=now_ns,
            expires_at_ns=now_ns + 600 * 10**9,
            status=Status.ACTIVE,
            requested_by="bench",
        )
        self.live = LiveSession(session=session, request=b"", feed=Feed())
        self._collectors = [f"01KBENCH000000000000000{number:03d}" for number in range(collectors)]
        self._running: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Opens the files, and begins to store."""
        await self.control.open()
        await self.events.open()
        await self.control.write(lambda connection: control.insert_session(connection, self.live.session, b""))
        self.book.add(self.live)
        for number, collector_id in enumerate(self._collectors):
            progress = Progress(collector_id=collector_id, session_id=SESSION_ID)
            self.book.add_collector(
                self.live, LiveCollector(agent_id=f"agent-{number}", boot_id="bench", progress=progress, status=Status.ACTIVE)
            )
        self._running = asyncio.create_task(self.ingest.run())

    async def close(self) -> None:
        """Closes the files."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
        await self.control.close()
        await self.events.close()

    async def put(self, messages: Iterator[ebpf_pb2.UprobeEventBatch]) -> None:
        """Takes in the messages of one collector, as the watch over it does."""
        for message in messages:
            collector = self.live.collectors[message.collector_id]
            batch = receive(message, collector_id=message.collector_id, received_ns=time.time_ns())
            await self.ingest.put(self.live, collector, batch)
            await asyncio.sleep(0)

    async def end(self) -> None:
        """Waits until all collectors have ended, and ends the session."""
        for collector in self.live.collectors.values():
            await collector.ended.wait()
        await self.book.end(self.live)

    def messages(
        self, number: int, *, rows: int, per_batch: int, began_ns: int, every_ns: int
    ) -> Iterator[ebpf_pb2.UprobeEventBatch]:
        """What the agent of one collector sends: so many events, one each ``every_ns``; the last batch is final."""
        collector_id = self._collectors[number]
        origin = Origin(
            collector_id=collector_id, agent_id=f"agent-{number}", service_name="checkout", function_name="main.Pay"
        )
        random = np.random.default_rng(number)
        for start in range(0, rows, per_batch):
            size = min(per_batch, rows - start)
            events = np.zeros(size, EVENT)
            events["sequence"] = np.arange(start + 1, start + size + 1)
            events["timestamp_ns"] = began_ns + np.arange(start, start + size) * every_ns + number
            events["duration_ns"] = random.lognormal(9, 1, size).astype("u8") + 1
            events["pid"], events["tid"] = 4000 + number, 5000 + random.integers(0, 8, size)
            reached, final = start + size, start + size == rows
            yield ebpf_pb2.UprobeEventBatch(
                arrow_ipc=encode(to_batch(events, origin)),
                first_sequence=start + 1,
                last_sequence=reached,
                collector_id=collector_id,
                final=final,
                status="expired" if final else "active",
                reason_code="deadline" if final else "",
                ledger=ledger_to(Ledger(entered=reached, returned=reached, emitted=reached, final=final)),
            )


class Lag:
    """How late the event loop comes back to somebody who waits a moment."""

    def __init__(self) -> None:
        self.late_s: list[float] = []

    async def watch(self) -> None:
        """Looks until cancelled."""
        while True:
            asked = time.monotonic()
            await asyncio.sleep(_LOOK_S)
            self.late_s.append(time.monotonic() - asked - _LOOK_S)

    def text(self) -> str:
        """Median, 99th percentile and maximum in ms."""
        p50, p99, most = np.percentile(self.late_s, [50, 99, 100]) * 1000
        return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {most:.1f} ms"


def run(*, rows: int) -> bool:
    """Prints the figures for collectors that send much and for many that send little; whether all was stored.

    Args:
        rows: Events of each run.
    """
    logs.configure(verbosity=logs.QUIET)
    print(f"ingest: {rows:,} events from Arrow batches to committed rows, one process; load {os.getloadavg()[0]:.1f}")
    stored = [asyncio.run(once(rows=rows, collectors=n, per_batch=size)) for n, size in ((1, 10_000), (4, 2_000), (50, 500))]
    return all(stored)


async def once(*, rows: int, collectors: int, per_batch: int) -> bool:
    """One run, with its figures printed; whether every event was stored."""
    with tempfile.TemporaryDirectory(prefix="coral-ingest-", dir="/var/tmp") as folder:
        store = Store(Path(folder), collectors=collectors)
        await store.open()
        each, began_ns = rows // collectors, time.time_ns()
        # Made before the clock runs: what agents do is not the colony's cost.
        sent = [
            list(store.messages(one, rows=each, per_batch=per_batch, began_ns=began_ns, every_ns=3_000))
            for one in range(collectors)
        ]
        lag = Lag()
        watching = asyncio.create_task(lag.watch())
        cpu_s, wall_s = time.process_time(), time.monotonic()
        await asyncio.gather(*(store.put(iter(messages)) for messages in sent))
        await store.end()
        cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
        watching.cancel()
        stored = store.live.view().ledger.stored
        await store.close()
        size = (Path(folder) / "events.duckdb").stat().st_size
    print(f"  {collectors} collectors, {per_batch:,} events a batch:")
    print(f"    {stored / cpu_s:,.0f} rows per CPU second, {stored / wall_s:,.0f} a second")
    print(f"    event loop late by {lag.text()}; {size / stored:.1f} bytes a row on disk")
    print(f"    memory at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB, with the batches of the bench")
    return stored == each * collectors
