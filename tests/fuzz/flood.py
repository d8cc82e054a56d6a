"""Ten thousand connections to a colony at once: some silent, some greeting, and a client that wants something meanwhile."""

from __future__ import annotations

import asyncio
import resource
import socket
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
from support import rpc
from support.stack import Daemon, free_port

from coral.client.colony import ColonyClient
from coral.model.errors import CoralError
from coral.wire.address import split_address
from fuzz.campaign import Report
from fuzz.frames import PREFACE

MEMORY_BYTES = 1 << 30
"""What the colony may hold under it."""
LIMIT = 4096
"""``max_connections`` as it is by default."""
_GREETING = PREFACE + b"\0\0\0\4\0\0\0\0\0"


def run(*, connections: int) -> Report:
    """Opens the connections, looks at the colony, closes them, and looks again."""
    report = Report(seed=0, clock="s", cases=connections)
    start = time.monotonic()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="coral-flood-") as folder:
        address = f"127.0.0.1:{free_port()}"
        options = ["--insecure", "--listen", address, "--state-dir", f"{folder}/state"]
        daemon = Daemon(["colony", "start", *options], Path(folder) / "colony.log")
        try:
            rpc.wait_until_healthy(address)
            _flood(report, address, psutil.Process(daemon.process.pid), connections)
        finally:
            if daemon.stop() != 0:
                report.defects.append("the colony did not end in order")
        report.defects += [f"in the log: {line}" for line in daemon.lines() if "Traceback" in line]
    report.duration_s = time.monotonic() - start
    return report


def _flood(report: Report, address: str, colony: psutil.Process, connections: int) -> None:
    with ExitStack() as held:
        opened = []
        for number in range(connections):
            try:
                one = held.enter_context(socket.create_connection(split_address(address), timeout=5))
                if number % 2:
                    one.sendall(_GREETING)
                one.setblocking(False)
                opened.append(one)
            except OSError:
                report.outcomes["not connected"] += 1
        kept = sum(map(_open, opened))
        report.outcomes["open at once"] = kept
        report.outcomes["closed by the colony"] = len(opened) - kept
        report.memory_bytes = colony.memory_info().rss
        if kept > LIMIT + 1:
            report.defects.append(f"{kept:,} connections are open; {LIMIT:,} are allowed")
        if report.memory_bytes > MEMORY_BYTES:
            report.defects.append(f"the colony holds {report.memory_bytes >> 20} MiB")
    begun = time.monotonic()
    while not asyncio.run(_answers(address)):
        if time.monotonic() - begun > 30:
            report.defects.append("the colony answers nobody after the flood")
            return
        time.sleep(0.1)
    report.worst_s, report.worst = time.monotonic() - begun, "until somebody is answered again"


def _open(connection: socket.socket) -> bool:
    try:
        while connection.recv(65_536):
            pass
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


async def _answers(address: str) -> bool:
    async with ColonyClient(address) as client:
        try:
            await client.agents()
        except CoralError:
            return False
        return True
