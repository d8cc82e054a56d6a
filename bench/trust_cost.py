"""What it costs to know who asks, whether they may, and to have it in the audit log: attaches with and without, in turns.

Without (``--insecure``) there is an audit log too. So what it costs an attach, a record that is on the disk before the act,
is measured by itself, on the same disk, and added.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from bench.daemons import Pair, insecure, secured
from bench.stack import BUILD, compiled
from coral.client.colony import ColonyClient
from coral.colony.audit import Audit
from coral.colony.store.database import Database
from coral.colony.store.schema import CONTROL
from coral.model.principal import Kind, Principal
from coral.telemetry import logs
from coral.wire._generated.colony.v1 import debug_pb2

GOAL_S = 0.005
_READS_S = 3.0
_AT_ONCE = 8


def run(*, times: int) -> bool:
    """Prints the figures.

    Args:
        times: How many attaches of each kind.

    Returns:
        Whether it adds less than the goal, in the median.
    """
    logs.configure(verbosity=0)
    BUILD.mkdir(parents=True, exist_ok=True)
    service = f"bench-trust-{os.getpid()}"
    program = subprocess.Popen([compiled("rate"), "100", "3600"], env=os.environ | {"CORAL_SERVICE": service})
    try:
        with tempfile.TemporaryDirectory(prefix="trust-", dir=BUILD) as folder:
            for name in ("without", "with", "audit"):
                (Path(folder) / name).mkdir(mode=0o700)
            with insecure(Path(folder) / "without") as without, secured(Path(folder) / "with") as with_it:
                plain, trusted = asyncio.run(_attaches(without, with_it, service, times))
                reads = [asyncio.run(_reads(pair)) for pair in (without, with_it)]
            audit = asyncio.run(_audit(Path(folder) / "audit", times))
    finally:
        program.kill()
        program.wait()
    # Of the pairs, each of which was measured within a moment: what else the machine does is in both.
    added = statistics.median(one - other for one, other in zip(trusted, plain, strict=True))
    print(f"trust: AttachUprobe to active, {times} of each in turns, image known; audited in both")
    print(f"  without credentials (plain text)                        {_figures(plain)}")
    print(f"  TLS, token, policies, signed command over mutual TLS    {_figures(trusted)}")
    print(f"  one synced audit record                                 {_figures(audit)}")
    whole = added + statistics.median(audit)
    print(f"  added to an attach, median of the pairs: {added * 1e3:.1f} ms, with the audit record {whole * 1e3:.1f} ms")
    print(f"  ListServices, {_AT_ONCE} at once: {reads[0]:,.0f} a second without, {reads[1]:,.0f} with")
    return whole < GOAL_S


def _figures(taken: list[float]) -> str:
    """On a machine that does other things too, the fastest tenth is what tells most."""
    ordered = sorted(taken)
    tenth, half, most = (ordered[int(share * (len(ordered) - 1))] * 1e3 for share in (0.1, 0.5, 0.95))
    return f"fastest tenth {tenth:.1f} ms, median {half:.1f} ms, p95 {most:.1f} ms"


async def _attaches(without: Pair, with_it: Pair, service: str, times: int) -> tuple[list[float], list[float]]:
    taken: tuple[list[float], list[float]] = ([], [])
    async with ColonyClient(without.endpoint) as plain, ColonyClient(with_it.endpoint) as trusted:
        for turn in range(times + 2):  # the first of each reads the image, and connects
            clients = list(enumerate((plain, trusted)))
            for kind, client in clients if turn % 2 else reversed(clients):
                begun = time.perf_counter()
                response = await client.attach(debug_pb2.AttachUprobeRequest(service_name=service, function_name="work"))
                spent = time.perf_counter() - begun
                await client.detach(response.session_id)
                if turn >= 2:
                    taken[kind].append(spent)
    return taken


async def _reads(pair: Pair) -> float:
    """How many small reads a second."""
    until = time.monotonic() + _READS_S
    count = 0
    async with ColonyClient(pair.endpoint) as client:

        async def ask() -> None:
            nonlocal count
            while time.monotonic() < until:
                await client.services("no-such-service")
                count += 1

        await asyncio.gather(*(ask() for _ in range(_AT_ONCE)))
    return count / _READS_S


async def _audit(folder: Path, times: int) -> list[float]:
    """How long a record takes to be on the disk."""
    database = Database(folder / "control.duckdb", CONTROL)
    await database.open()
    audit = Audit(database, folder=folder)
    await audit.open()
    taken = []
    try:
        for _ in range(times):
            entry = audit.entry(Principal(name="bench", kind=Kind.LOCAL), "AttachUprobe", service_name="bench")
            begun = time.perf_counter()
            await audit.before(entry)
            taken.append(time.perf_counter() - begun)
    finally:
        await audit.close()
        await database.close()
    return taken
