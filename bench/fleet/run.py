"""Plays a fleet against a colony, part by part, and prints what each costs."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench.fleet.colony import FleetColony, Usage
from bench.fleet.plan import FUNCTION, SERVICE, Plan
from bench.fleet.players import Counted, Players, players
from bench.stack import BUILD, CORAL
from coral.client.colony import ColonyClient
from coral.wire import convert
from coral.wire._generated.colony.v1 import debug_pb2

CORE_GOAL = 0.5
ATTACH_GOAL_S = 2.0
_ATTACHES = 5
_SETTLE_S = 2.0
_SESSION_S = 600


def run(plan: Plan) -> bool:
    """Prints the figures.

    Returns:
        Whether heartbeats cost less than half a core, and an attach everywhere takes less than two seconds.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="fleet-", dir=BUILD)))
        colony = FleetColony(plan, folder)
        colony.found()
        parts = colony.enrol(list(plan.parts()))
        held.callback(colony.stop)
        colony.start()
        playing = held.enter_context(players([replace(part, colony=colony.agents) for part in parts]))
        return _play(plan, colony, playing)


def _play(plan: Plan, colony: FleetColony, playing: Players) -> bool:
    how = "TLS, certificates, signed commands" if plan.secured else "plain text"
    print(f"fleet: {plan.agents:,} agents of {plan.services} services each, {plan.simulators} simulators; {how}; {_load()}")
    _registration(plan, colony, playing)
    cores = _heartbeats(plan, colony, playing)
    attach_s = asyncio.run(_attaches(plan, colony))
    asyncio.run(_lists(plan, colony))
    if plan.events_per_s:
        asyncio.run(_events(plan, colony, playing))
    _restart(plan, colony, playing)
    for line in colony.errors()[:5]:
        print(f"  in the colony's log: {line[:300]}")
    return cores < CORE_GOAL and attach_s < ATTACH_GOAL_S


def _registration(plan: Plan, colony: FleetColony, playing: Players) -> None:
    idle = colony.usage()
    connections = sum(each["connections"] for each in playing.tell("connect"))
    connected = colony.usage()
    counted = playing.count("register")
    registered = colony.usage()
    per_connection = (connected.memory_bytes - idle.memory_bytes) / connections / 1024
    per_agent = (registered.memory_bytes - connected.memory_bytes) / plan.agents / 1024
    spent_s = registered.cpu_s - connected.cpu_s
    print(
        f"  memory: colony {_mib(idle)} MiB idle, {_mib(registered)} with all; a connection {per_connection:.0f} KiB "
        f"({connections:,} of them), an agent {per_agent:.1f} KiB; connecting took {connected.cpu_s - idle.cpu_s:.1f} CPU s"
    )
    print(
        f"  registration of all at once: {registered.at - connected.at:.1f} s, colony {spent_s:.1f} CPU s "
        f"({spent_s / plan.agents * 1e3:.2f} ms each), {_failed(counted)}"
    )


def _heartbeats(plan: Plan, colony: FleetColony, playing: Players) -> float:
    time.sleep(min(_SETTLE_S, plan.seconds / 4))
    before = playing.count()
    began = colony.usage()
    time.sleep(plan.seconds)
    ended = colony.usage()
    counted = playing.count()
    wall_s = ended.at - began.at
    beats, cores = max(1, counted.beats), ended.cores_since(began)
    print(
        f"  heartbeats for {wall_s:.0f} s: {beats / wall_s:.0f}/s, one of an agent in {plan.agents * wall_s / beats:.1f} s; "
        f"colony {cores:.2f} of a core ({cores * wall_s / beats * 1e3:.2f} ms each), "
        f"simulators {(counted.cpu_s - before.cpu_s) / wall_s:.2f}; {_spread(counted.taken_s)}; {_failed(counted)}"
    )
    return cores


async def _attaches(plan: Plan, colony: FleetColony) -> float:
    taken: list[float] = []
    costs: list[float] = []
    async with ColonyClient(colony.endpoint) as client:
        for _ in range(_ATTACHES):
            began = colony.usage()
            response = await client.attach(_request())
            ended = colony.usage()
            taken.append(ended.at - began.at)
            costs.append(ended.cpu_s - began.cpu_s)
            session = await client.session(response.session_id)
            attached = sum(one.status == "attached" for each in session.collectors for one in each.instances)
            active = sum(each.status == "active" for each in session.collectors)
            whole = attached == plan.instances // plan.reached * plan.reached and active == plan.reached
            if not whole or response.error or session.status != "active":
                others = {f"{each.status} {each.reason}" for each in session.collectors if each.status != "active"}
                sys.exit(
                    f"attach: {attached} instances on {active} of {len(session.collectors)} agents, {session.status}, "
                    f"{response.error[:300] or 'without a warning'}; {'; '.join(sorted(others))[:300]}"
                )
            await client.detach(response.session_id)
    print(
        f"  attach to {plan.instances:,} instances on {plan.reached} agents, request to active everywhere: first, with "
        f"connecting, {taken[0]:.2f} s (colony {costs[0]:.2f} CPU s); "
        f"later {statistics.median(taken[1:]):.2f} s ({statistics.median(costs[1:]):.2f})"
    )
    return max(taken)


async def _lists(plan: Plan, colony: FleetColony) -> None:
    async with ColonyClient(colony.endpoint) as client:
        began = colony.usage()
        agents = await client.agents()
        listed = colony.usage()
        services = await client.services()
        done = colony.usage()
        named = await client.services(SERVICE)
        last = colony.usage()
    print(
        f"  lists: {len(agents):,} agents {listed.at - began.at:.2f} s ({listed.cpu_s - began.cpu_s:.2f} CPU s of it), "
        f"{len(services):,} services {done.at - listed.at:.2f} s ({done.cpu_s - listed.cpu_s:.2f}), "
        f"one service on {len(named)} agents {(last.at - done.at) * 1e3:.0f} ms"
    )
    for words in (("agent", "list"), ("service", "list")):
        _time_command(colony, *words)


async def _events(plan: Plan, colony: FleetColony, playing: Players) -> None:
    async with ColonyClient(colony.endpoint) as client:
        response = await client.attach(_request())
        idle = colony.usage()
        await asyncio.sleep(min(5.0, plan.seconds))
        print(f"  a session on {plan.reached} agents without events: {colony.usage().cores_since(idle):.2f} of a core")
        before = playing.count()
        playing.tell("events")
        began = colony.usage()
        await asyncio.sleep(plan.seconds)
        ended = colony.usage()
        counted = playing.count()
        wall_s = ended.at - began.at
        stored = (await client.session(response.session_id)).ledger.stored
        print(
            f"  {plan.events_per_s:,} events/s of it for {wall_s:.0f} s: colony {ended.cores_since(began):.2f} of a core, "
            f"{_mib(ended)} MiB, simulators {(counted.cpu_s - before.cpu_s) / wall_s:.2f}; {counted.emitted:,} emitted, "
            f"{stored:,} stored by then ({stored / wall_s:,.0f}/s)"
        )
        await client.detach(response.session_id, timeout_s=60)
        while (session := await client.session(response.session_id)).status == "active":  # noqa: ASYNC110  (behind gRPC)
            await asyncio.sleep(0.1)
        ledger = session.ledger
        print(
            f"  all stored {time.monotonic() - ended.at:.1f} s later: emitted {ledger.emitted:,} = stored {ledger.stored:,} "
            f"+ dropped {ledger.queue_dropped:,}; balanced {ledger.balanced if ledger.HasField('balanced') else None}"
        )
    _time_command(colony, "debug", "session", "get", response.session_id)


def _restart(plan: Plan, colony: FleetColony, playing: Players) -> None:
    playing.tell("forget")
    begun = time.monotonic()
    colony.stop()
    stopped = time.monotonic()
    colony.start()
    ready = colony.usage()
    counted = playing.count("registered")
    again = colony.usage()
    print(
        f"  restart: stopped in {stopped - begun:.1f} s, ready {ready.at - stopped:.1f} s later ({ready.cpu_s:.1f} CPU s); "
        f"all registered again in {again.at - ready.at:.1f} s more, colony {again.cores_since(ready):.2f} of a core; "
        f"{_failed(counted)}"
    )


def _time_command(colony: FleetColony, *words: str) -> None:
    begun = time.perf_counter()
    output = _coral(colony, *words)
    print(f"  coral {' '.join(words)}: {time.perf_counter() - begun:.1f} s, {output.count(chr(10)):,} lines")


def _request() -> debug_pb2.AttachUprobeRequest:
    duration = convert.duration(_SESSION_S * 1_000_000_000)
    return debug_pb2.AttachUprobeRequest(service_name=SERVICE, function_name=FUNCTION, duration=duration)


def _coral(colony: FleetColony, *words: str) -> str:
    endpoint = colony.endpoint
    environment = os.environ | {"CORAL_TOKEN": endpoint.token} if endpoint.token else dict(os.environ)
    options: list[str | Path] = ["--colony", endpoint.address]
    with tempfile.NamedTemporaryFile(suffix=".pem") as ca:
        if endpoint.ca_pem is not None:
            ca.write(endpoint.ca_pem)
            ca.flush()
            options += ["--ca", ca.name]
        command = [CORAL, *options, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, env=environment)
    return done.stdout


def _failed(counted: Counted) -> str:
    return f"{counted.failures:,} calls failed: {counted.why}" if counted.failures else "no call failed"


def _spread(taken_s: list[float]) -> str:
    if not taken_s:
        return "none answered"
    half, most = (taken_s[int(share * (len(taken_s) - 1))] * 1e3 for share in (0.5, 0.99))
    return f"median {half:.1f} ms, 99th percentile {most:.1f} ms"


def _mib(usage: Usage) -> int:
    return usage.memory_bytes >> 20


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f} at the start"
