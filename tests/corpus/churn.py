"""`make churn`: random functions of real programs under load, attached and detached in turn through the agent's own layers.

First every function of a program is watched at once for a moment, in the kernel layer, to know which of them the load
reaches. Then functions are drawn at random, whether reached or not; each is attached, seen for a moment, and detached. The
programs check their own answers all the time, and at the end their text is compared with their files.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import structlog
from support import loads, scripted_loads
from support.agent_parts import collectors_on
from support.text import changed_text

from coral.agent.collectors import Collectors
from coral.kernel.cookie import MAX_SITES
from coral.kernel.engine import Attachment, Engine
from coral.model.errors import AmbiguousName, CoralError
from coral.model.probe import Mode, ProbeConfig, ProbeFilter, ProbeSpec
from coral.model.site import FunctionPlan, Method
from coral.model.text import printable
from corpus.plans import all_plans
from corpus.recipes import caddy

_AT_ONCE = 6
_WAIT_S = 2.0
"""How long a function that the load reaches is waited for."""
_UNREACHED_S = 0.1
_STEP_S = 0.02
_LOOK_S = 3.0
"""How long all functions of a program are watched to know which are reached."""

# How many of a hundred functions are drawn from each program.
PROGRAMS: Mapping[str, tuple[int, Callable[[Path], AbstractContextManager[loads.Load]]]] = {
    "postgres": (34, loads.postgresql),
    "caddy": (18, lambda folder: loads.caddy(folder, caddy().obtain())),
    "redis": (16, loads.redis),
    "cpython": (14, scripted_loads.cpython),
    "nginx": (8, loads.nginx),
    "sqlite": (6, scripted_loads.sqlite),
    "git": (2, scripted_loads.git),
    "ripgrep": (2, scripted_loads.ripgrep),
}


@dataclass(slots=True, kw_only=True)
class Figures:
    """What became of the functions of one program.

    Attributes:
        wanted: How many were to be attached.
        functions: That can be probed.
        reached: Of them, how many the load called while all were watched.
        attached: How often one was attached and detached.
        hit: How often calls were counted.
        drawn_reached: How many of the attached ones were reached before.
        hit_reached: Of those, how many had calls counted.
        calls: That were counted.
        refused: Functions that were drawn and could not be attached, by reason.
        faults: What went wrong, as sentences.
        units: Of work that the program did.
        status: Its exit code.
    """

    wanted: int = 0
    functions: int = 0
    reached: int = 0
    attached: int = 0
    hit: int = 0
    drawn_reached: int = 0
    hit_reached: int = 0
    calls: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    units: int = 0
    status: int = -1

    @property
    def good(self) -> bool:
        """Whether all were attached, nothing went wrong, and half of what the load reaches was seen."""
        whole = self.attached == self.wanted and not self.faults and self.status == 0
        return whole and 2 * self.hit_reached >= self.drawn_reached


def churn(
    names: Sequence[str], *, count: int, seed: int, every: int = 1, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Figures]:
    """Attaches ``count`` functions in all to some programs under load.

    Blocking. Needs root.

    Args:
        names: Of the programs, of ``PROGRAMS``.
        count: How many functions are attached.
        seed: Of the choice.
        every: 1 to draw from all functions, 8 to draw from every eighth, which is known sooner.
        progress: Told what goes on.
    """
    found: dict[str, Figures] = {}
    parts = sum(PROGRAMS[name][0] for name in names)
    with ExitStack() as stack:
        running = {}
        for name in names:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coral-churn-")))
            running[name] = stack.enter_context(PROGRAMS[name][1](folder))
        for name, load in running.items():
            share = max(1, round(count * PROGRAMS[name][0] / parts))
            progress(f"{name}: {share} functions")
            found[name] = _churn_one(load, share, every, random.Random(f"{seed} {name}"))
    return found


def _churn_one(load: loads.Load, count: int, every: int, chance: random.Random) -> Figures:
    figures = Figures(wanted=count)
    plans = all_plans(load.image, every=every)
    figures.functions = len(plans)
    before = set(load.pids())
    reached = _reached(load, plans)
    figures.reached = len(reached)
    # In a process of its own: it starts others, and a child holds its parent's links, breakpoints and all, until it execs.
    forking = multiprocessing.get_context("fork")
    stop, (answer, told) = forking.Event(), forking.Pipe(duplex=False)
    worker = forking.Process(target=_work, args=(load, stop, told), daemon=True)
    worker.start()
    asyncio.run(_attach_all(load, plans, reached, count, chance, figures))
    stop.set()
    if answer.poll(300):
        figures.units, faults = answer.recv()
        figures.faults += faults
    else:
        figures.faults.append("the load did not come to an end")
        worker.kill()
    worker.join()
    if not before <= set(load.pids()):
        figures.faults.append(f"processes are gone: {before - set(load.pids())}")
    figures.faults += [f"text changed: {place}" for pid in load.pids() for place in changed_text(pid)[:3]]
    figures.status = load.stop()
    return figures


def _work(load: loads.Load, stop: Event, told: Connection) -> None:
    """Lets a program work until it is told to stop, and tells how much it did and what went wrong."""
    units = 0
    faults: list[str] = []
    while not stop.is_set() and not faults:
        try:
            units += load.work(0.5)
        except (loads.WrongAnswer, RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            faults.append(f"while at work: {error}")
    told.send((units, faults))


def _reached(load: loads.Load, plans: Sequence[FunctionPlan]) -> set[str]:
    """The names of the functions that the load calls within a moment."""
    engine = Engine(ring_bytes=1 << 24, max_open_calls=1024)
    seen: set[str] = set()
    try:
        for start in range(0, len(plans), MAX_SITES // 8):
            part = plans[start : start + MAX_SITES // 8]
            sites = {site: plan.name for plan in part for site in plan.entries}
            watched = FunctionPlan(
                name="all",
                language="",
                pairing=part[0].pairing,
                method=Method.ENTRY_ONLY,
                reason="only watched",
                sites=tuple(sites),
            )
            counts = _watch(engine, load, watched)
            seen.update(name for name, calls in zip(sites.values(), counts, strict=True) if calls)
    finally:
        engine.close()
    return seen


def _watch(engine: Engine, load: loads.Load, plan: FunctionPlan) -> list[int]:
    """How often each site of a plan is passed while the load works for a moment, as far as the ring holds it."""
    slot = engine.acquire_slot(ProbeConfig(), ProbeFilter())
    counts = np.zeros(len(plan.sites), "i8")
    attachment: Attachment | None = None
    try:
        for pid in load.pids():
            engine.add_member(slot, pid)
        attachment = engine.attach(slot, str(load.image), plan, first_site=0, mode=Mode.EVENTS)
        worker = threading.Thread(target=load.work, args=(_LOOK_S,), daemon=True)
        worker.start()
        while worker.is_alive():
            engine.wait(0.02)
            counts += np.bincount(engine.drain().events["site"], minlength=len(counts))
        worker.join()
    finally:
        if attachment is not None:
            attachment.detach()
        engine.drain()
        engine.release_slot(slot)
    return counts.tolist()


async def _attach_all(
    load: loads.Load, plans: Sequence[FunctionPlan], reached: set[str], count: int, chance: random.Random, figures: Figures
) -> None:
    """Draws functions and attaches them, some at a time, until enough were."""
    names = sorted({plan.name for plan in plans})
    order = chance.sample(names, len(names))
    while len(order) < 2 * count:  # a small program: its functions come again
        order += chance.sample(names, len(names))
    drawn = iter(order)
    engine = await asyncio.to_thread(Engine)
    try:
        async with collectors_on(engine, limit=_AT_ONCE + 2) as collectors:

            async def one_after_another() -> None:
                while figures.attached < count and (name := next(drawn, "")):
                    await _attach_one(collectors, load, name, name in reached, figures)

            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(_AT_ONCE, count)):
                    tasks.create_task(one_after_another())
    finally:
        await asyncio.to_thread(engine.close)


async def _attach_one(collectors: Collectors, load: loads.Load, name: str, reached: bool, figures: Figures) -> None:
    """One function, from attach to the final ledger."""
    spec = ProbeSpec(
        service_name=load.service,
        function_name=f"{load.library}!{name}" if load.library else name,
        duration_ns=60_000_000_000,
        config=ProbeConfig(),
        filter=ProbeFilter(max_events_per_second=2_000),
    )
    figures.attached += 1
    try:
        collector = await collectors.start(spec, session_id="", actor="churn", of_colony=False)
    except AmbiguousName:
        figures.attached -= 1
        figures.refused["several functions have the name"] += 1
        return
    except CoralError as error:
        figures.attached -= 1
        figures.refused[f"{type(error).__name__}: {error.message[:160]}"] += 1
        return
    for _ in range(round((_WAIT_S if reached else _UNREACHED_S) / _STEP_S)):
        await asyncio.sleep(_STEP_S)
        if collector.ledger.entered:
            break
    ended = await collectors.stop(collector.collector_id)
    ledger = ended.ledger
    figures.calls += ledger.entered
    figures.hit += ledger.entered > 0
    figures.drawn_reached += reached
    figures.hit_reached += reached and ledger.entered > 0
    counted = ledger.returned + ledger.unreturned + ledger.unseen
    told = ledger.emitted + ledger.filtered + ledger.sampled_out + ledger.rate_limited + ledger.ring_lost
    if ledger.entered != counted or ledger.returned + ledger.unseen != told:
        figures.faults.append(f"{printable(name)}: the ledger does not balance: {ledger}")
    if ended.reason.startswith("After the detach"):
        figures.faults.append(f"{printable(name)}: {ended.reason}")


def lines(found: Mapping[str, Figures]) -> list[str]:
    """The figures as a table, and everything that went wrong."""
    rows = ["program    functions  reached  attached  with calls  of reached       calls  work units  exit"]
    for name, one in found.items():
        seen = f"{one.hit_reached}/{one.drawn_reached}"
        rows.append(
            f"{name:9}  {one.functions:9,}  {one.reached:7,}  {one.attached:8,}  {one.hit:10,}  {seen:>10}  {one.calls:10,}"
            f"  {one.units:10,}  {one.status:4}"
        )
    total = [
        sum(getattr(one, what) for one in found.values()) for what in ("attached", "hit", "hit_reached", "drawn_reached")
    ]
    share = total[2] / total[3] if total[3] else 0.0
    rows.append(f"{total[0]:,} attached, {total[1]:,} with calls; {share:.1%} of the {total[3]:,} that the load reaches")
    for name, one in found.items():
        rows += [f"{name}: {times} x not attached: {reason}" for reason, times in one.refused.most_common(5)]
        rows += [f"{name}: WRONG: {fault}" for fault in one.faults[:20]]
    return rows


def main() -> int:
    """The exit status is 0 if nothing went wrong and, in each program, half of what the load reaches was seen."""
    parser = argparse.ArgumentParser(prog="python -m corpus.churn", description=__doc__)
    parser.add_argument("--functions", type=int, default=2_000, help="that are attached and detached")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="of the choice")
    parser.add_argument("--only", choices=PROGRAMS, help="one program")
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    print(f"seed {chosen.seed}", flush=True)
    names = [chosen.only] if chosen.only else list(PROGRAMS)
    started = time.monotonic()
    found = churn(
        names, count=chosen.functions, seed=chosen.seed, progress=lambda text: print(text, file=sys.stderr, flush=True)
    )
    print("\n".join(lines(found)))
    print(f"{time.monotonic() - started:.0f} s")
    return 0 if all(one.good for one in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
