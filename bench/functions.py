"""Listing the functions of a program of 100,000 functions and 100 MB: the first time, and again."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from support.large_program import large_program

from bench.stack import CORAL, Dev, dev
from coral.client.colony import ColonyClient
from coral.wire._generated.colony.v1 import inspect_pb2

T = TypeVar("T")

_FIRST_S = 3.0
_AGAIN_S = 0.2


def run(*, times: int) -> bool:
    """Prints the figures; whether the first list came within 3 s and the same again within 200 ms.

    Args:
        times: How often to ask again.
    """
    with tempfile.TemporaryDirectory(prefix="coral-bench-") as folder, dev() as coral:
        program = large_program(Path(folder))
        size_mb = program.stat().st_size / 1e6
        service = f"bench-functions-{os.getpid()}"
        process = subprocess.Popen([program], env=os.environ | {"CORAL_SERVICE": service})
        try:
            return asyncio.run(_measure(coral, service, size_mb, times))
        finally:
            process.kill()
            process.wait()


async def _measure(coral: Dev, service: str, size_mb: float, times: int) -> bool:
    async with ColonyClient(coral.colony) as client:
        await _known(client, service)

        async def listing(**wanted: int | str) -> inspect_pb2.ListFunctionsResponse:
            request = inspect_pb2.ListFunctionsRequest(service_name=service)
            for name, value in wanted.items():
                setattr(request, name, value)
            return await client.functions(request)

        first_s, page = await _timed(listing)
        again_s = statistics.median([(await _timed(listing))[0] for _ in range(times)])
        all_s = statistics.median([(await _timed(lambda: listing(page_size=100_000)))[0] for _ in range(times)])
        narrowed_s, narrowed = await _timed(lambda: listing(pattern="step999"))
        info_s = statistics.median([(await _timed(lambda: client.explain(service, "step999")))[0] for _ in range(times)])
    image = page.images[0]
    print(f"functions: ListFunctions, a program of {image.matches:,} functions, {size_mb:.0f} MB")
    print(f"  first time              {first_s:.2f} s, {1000 - image.undecided} of 1,000 functions decoded")
    print(f"  again                   {again_s * 1e3:.0f} ms")
    print(f"  all of them, again      {all_s * 1e3:.0f} ms")
    print(f"  a pattern, first time   {narrowed_s * 1e3:.0f} ms, {narrowed.images[0].matches} functions, all decoded")
    print(f"  ExplainFunction         {info_s * 1e3:.0f} ms")
    command = [str(CORAL), "--colony", coral.colony]
    listed_s = statistics.median([_command_s([*command, "function", "list", service]) for _ in range(times)])
    bare_s = statistics.median([_command_s([*command, "service", "list"]) for _ in range(times)])
    print(f"  the command, again      {listed_s * 1e3:.0f} ms; `coral service list` {bare_s * 1e3:.0f} ms")
    return first_s <= _FIRST_S and again_s <= _AGAIN_S


async def _known(client: ColonyClient, service: str) -> None:
    for _ in range(1000):
        if await client.services(service):
            return
        await asyncio.sleep(0.01)


async def _timed(ask: Callable[[], Awaitable[T]]) -> tuple[float, T]:
    begun_s = time.perf_counter()
    answer = await ask()
    return time.perf_counter() - begun_s, answer


def _command_s(command: list[str]) -> float:
    begun_s = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun_s
