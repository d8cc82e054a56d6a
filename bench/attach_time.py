"""From the request to ``active``: the first time an image is seen, and after that."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import time

from bench.stack import compiled, dev
from coral.client.colony import ColonyClient
from coral.wire._generated.colony.v1 import debug_pb2


def run(*, times: int) -> bool:
    """Prints the figures.

    Args:
        times: How often to attach to the image once it is known.
    """
    with dev() as coral:
        service = f"bench-attach-{os.getpid()}"
        program = subprocess.Popen([compiled("rate"), "100", "600"], env=os.environ | {"CORAL_SERVICE": service})
        try:
            first, again = asyncio.run(_measure(coral.colony, service, times))
        finally:
            program.kill()
            program.wait()
    again.sort()
    print(f"attach: AttachUprobe to active, C program of {compiled('rate').stat().st_size >> 10} KiB")
    print(f"  first time   {first * 1e3:.0f} ms")
    print(f"  seen before  median {statistics.median(again) * 1e3:.0f} ms, max {again[-1] * 1e3:.0f} ms of {times}")
    return True


async def _measure(colony: str, service: str, times: int) -> tuple[float, list[float]]:
    taken = []
    async with ColonyClient(colony) as client:
        for _ in range(times + 1):
            request = debug_pb2.AttachUprobeRequest(service_name=service, function_name="work")
            started = time.perf_counter()
            response = await client.attach(request)
            taken.append(time.perf_counter() - started)
            await client.detach(response.session_id)
    return taken[0], taken[1:]
