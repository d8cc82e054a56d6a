"""What is reached without loss, end to end through agent and colony, and what becomes of the calls beyond it.

The program counts its calls itself, and starts when it is probed, so that every one of them has to be accounted for.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import contest
from bench.stack import Dev, compiled, dev
from coral.client.colony import ColonyClient
from coral.events.batch import decode
from coral.wire._generated.colony.v1 import debug_pb2

_LOST = ("ring_lost", "rate_limited", "queue_dropped", "too_deep")
GOAL_LATENCY_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One program at one rate.

    Attributes:
        name: In words.
        path: Of the program.
        function: That is probed.
        rate: Calls a second that it is asked for; 0 for as many as it can.
        threads: That make them.
        options: Of the attach.
        goal: Calls a second that are to be reached without loss; 0 where loss is the point.
    """

    name: str
    path: Path
    function: str = "work"
    rate: int = 0
    threads: int = 1
    options: Sequence[str] = ()
    goal: int = 0


def loads() -> list[Load]:
    """What is tried, and what is to be reached."""
    c, go = compiled("rate"), contest.go_program()
    count = ("--mode", "count")
    return [
        Load(name="C, counted only", path=c, threads=2, options=count, goal=300_000),
        Load(name="C, every call stored", path=c, rate=60_000, goal=59_000),
        Load(name="Go, every call stored", path=go, function="main.work", rate=20_000, goal=19_500),
        Load(name="C, beyond", path=c, threads=2),
        Load(name="Go, beyond", path=go, function="main.work", threads=2),
    ]


def run(*, seconds: int) -> bool:
    """Prints the figures; whether goals were reached without loss, and every call was accounted for in all cases.

    Args:
        seconds: Of each load.
    """
    print(f"beyond: {seconds} s each through agent and colony; CPU of the program for a call is what bounds it")
    good = True
    with dev() as coral:
        for load in loads():
            good &= one(coral, load, seconds)
        good &= latency(coral)
    return good


def one(coral: Dev, load: Load, seconds: int) -> bool:
    """One load; whether it did what it is meant to show."""
    service = f"bench-beyond-{os.getpid()}-{time.monotonic_ns()}"
    words = [str(load.path), str(load.rate), str(seconds), str(load.threads), "wait"]
    target = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"CORAL_SERVICE": service}
    )
    attach = ("debug", "attach", service, "-f", load.function, "-d", "600s", "--no-wait", "--accept-cost", *load.options)
    session_id = coral.coral(*attach)["session_id"]
    daemons, children = coral.cpu_s(), resource.getrusage(resource.RUSAGE_CHILDREN)
    made = json.loads(target.communicate(b"\n")[0])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    program_s = used.ru_utime + used.ru_stime - children.ru_utime - children.ru_stime
    session = coral.coral("debug", "session", "stop", session_id)
    spent = {role: total - daemons[role] for role, total in coral.cpu_s().items()}
    return _judge(load, made, session["ledger"], program_s, spent)


def _judge(load: Load, made: dict[str, Any], ledger: dict[str, Any], program_s: float, spent: dict[str, float]) -> bool:
    calls, rate = made["calls"], made["calls"] / made["seconds"]
    lost = {name: ledger[name] for name in _LOST if ledger[name]}
    exact = ledger["entered"] == calls and ledger["balanced"] is True
    reached = not load.goal or (rate >= load.goal and not lost)
    told = ", ".join(f"{name} {count:,}" for name, count in lost.items()) or "nothing lost"
    print(
        f"  {load.name:22} {rate:9,.0f} calls/s; entered {ledger['entered']:,} of {calls:,}, "
        f"stored {ledger['stored']:,}, {told}; {'every call accounted for' if exact else 'NOT EXACT'}"
    )
    cost_us = program_s / calls * 1e6
    parts = ", ".join(f"{role} {cpu / made['seconds']:.2f}" for role, cpu in sorted(spent.items()))
    print(
        f"  {'':22} {cost_us:.1f} us of CPU a call in the program, so at most {1e6 / cost_us:,.0f} a second on a core; "
        f"cores used: {parts}"
    )
    return exact and reached


def latency(coral: Dev) -> bool:
    """From the return of a call to whoever follows the session, in a quiet program and in a busy one."""
    good = True
    for rate, seconds in ((2, 12), (20_000, 8)):
        service = f"bench-latency-{os.getpid()}-{rate}"
        words = [str(compiled("rate")), str(rate), str(seconds + 10)]
        target = subprocess.Popen(words, stdout=subprocess.PIPE, env=os.environ | {"CORAL_SERVICE": service})
        try:
            late_s = sorted(asyncio.run(_late_s(coral.colony, service, seconds)))
        finally:
            target.kill()
            target.communicate()
        middle, most = statistics.median(late_s), late_s[int(0.99 * (len(late_s) - 1))]
        good &= bool(late_s) and (rate > 100 or middle < GOAL_LATENCY_S)
        print(
            f"  latency at {rate:,} calls/s: from the return to the follower median {middle * 1e3:.0f} ms, "
            f"p99 {most * 1e3:.0f} ms of {len(late_s):,} events"
        )
    return good


async def _late_s(colony: str, service: str, seconds: int) -> list[float]:
    late: list[float] = []
    async with ColonyClient(colony) as client:
        request = debug_pb2.AttachUprobeRequest(service_name=service, function_name="work")
        session_id = (await client.attach(request)).session_id
        try:
            async with asyncio.timeout(seconds):
                async for batch in client.follow(session_id, after={}, timeout_s=seconds + 60):
                    now_ns = time.time_ns()
                    late += [(now_ns - at_ns) / 1e9 for at_ns in decode(batch.arrow_ipc)["timestamp_ns"].to_pylist()]
        except TimeoutError:
            pass
        await client.detach(session_id)
    return late
