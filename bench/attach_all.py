"""Every function of a running server at once: is it alive, is it right, and how long do attaching and detaching take?"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from corpus.plans import all_plans
from corpus.recipes import caddy
from support import loads
from support.text import changed_text

from coral.kernel.cookie import MAX_SITES
from coral.kernel.engine import Attachment, Engine
from coral.model.probe import Mode, ProbeConfig, ProbeFilter
from coral.model.site import FunctionPlan, Method, Pairing, Site

_OPEN_CALLS = 1 << 18


def run(*, seconds: float, only: str = "") -> bool:
    """Prints the figures; whether every server stayed alive and right, and nothing was left in its text.

    Args:
        seconds: Of load with everything attached, for entries alone and for entries with returns.
        only: One of the servers; all of them when empty.
    """
    servers: dict[str, Callable[[Path], AbstractContextManager[loads.Load]]] = {
        "nginx": loads.nginx,
        "redis": loads.redis,
        "postgres": loads.postgresql,
        "caddy": lambda folder: loads.caddy(folder, caddy().obtain()),
    }
    print("attach_all: all functions of a running server at once, in the kernel layer")
    results = []
    engine = Engine(ring_bytes=1 << 20, max_open_calls=_OPEN_CALLS)
    try:
        for name, start in servers.items():
            if only in ("", name):
                with tempfile.TemporaryDirectory(prefix="coral-bench-") as folder:
                    results.append(_one(engine, start, Path(folder), seconds))
    finally:
        engine.close()
    return all(results)


def _one(engine: Engine, start: Callable[[Path], AbstractContextManager[loads.Load]], folder: Path, seconds: float) -> bool:
    with start(folder) as load:
        plans = all_plans(load.image)
        exact = sum(plan.method is Method.RET_SITES for plan in plans)
        rate = load.work(seconds / 3) / (seconds / 3)
        print(f"  {load.name}: {len(plans):,} functions ({exact:,} with returns); {rate:,.0f} units/s without probes")
        right = [_round(engine, load, plans, mode, seconds, rate) for mode in (Mode.COUNT, Mode.EVENTS)]
        status = load.stop()
    print(f"    exit status {status}")
    return all(right) and status == 0


def _round(engine: Engine, load: loads.Load, plans: Sequence[FunctionPlan], mode: Mode, seconds: float, rate: float) -> bool:
    """One attach of everything, a time of load, one detach."""
    pids = load.pids()
    slots, attachments = [], []
    taken = 0.0
    for share in _shares(plans):
        # No event is wanted of millions of calls a second: they are counted, and the returns matched.
        slot = engine.acquire_slot(ProbeConfig(mode=Mode.COUNT), ProbeFilter())
        slots.append(slot)
        for pid in pids:
            engine.add_member(slot, pid)
        started = time.perf_counter()
        attachments += _attach(engine, slot, str(load.image), share, mode)
        taken += time.perf_counter() - started
    begun = time.monotonic()
    units = load.work(seconds)
    lasted = time.monotonic() - begun
    for slot in slots:
        engine.begin_detach(slot)
    started = time.perf_counter()
    for attachment in attachments:
        attachment.detach()
    gone = time.perf_counter() - started
    totals = [engine.counters(slot) for slot in slots]
    open_calls = engine.count_open_calls()
    counted = {name: sum(total[name] for total in totals) for name in totals[0]}
    left = sum(open_calls.get(slot, 0) for slot in slots)
    for slot in slots:
        engine.release_slot(slot)
    changed = [place for pid in load.pids() for place in changed_text(pid)]
    same = set(pids) <= set(load.pids())
    balanced = counted["entered"] == sum(counted[name] for name in ("returned", "no_return", "too_deep", "unseen")) + left
    sites = sum(len(plan.entries if mode is Mode.COUNT else plan.sites) for plan in plans)
    per_function = 10_000 / len(plans)
    for line in (
        f"  {'entries' if mode is Mode.COUNT else 'entries and returns'}: {sites:,} sites attached in {taken:.2f} s, "
        f"detached in {gone:.2f} s ({taken * per_function:.2f} and {gone * per_function:.2f} s per 10,000 functions)",
        f"    {lasted:.0f} s of load: {counted['entered']:,} calls, {counted['returned']:,} returned, "
        f"{counted['unseen']:,} of entries only, {counted['no_return']:,} without return, {counted['too_deep']:,} too deep, "
        f"{left:,} open, {counted['orphan_returns']:,} orphans; {'balanced' if balanced else 'NOT BALANCED'}",
        f"    answers right, at {units / lasted / rate:.1%} of the speed; {'the same' if same else 'OTHER'} processes; "
        f"text changed at {len(changed)} places",
    ):
        print(f"  {line}")
    return balanced and same and not changed and counted["entered"] > 0


def _shares(plans: Sequence[FunctionPlan]) -> Iterator[list[FunctionPlan]]:
    """The plans in parts that fit one slot each."""
    part: list[FunctionPlan] = []
    sites = 0
    for plan in plans:
        if sites + len(plan.sites) > MAX_SITES - 1:
            yield part
            part, sites = [], 0
        part.append(plan)
        sites += len(plan.sites)
    if part:
        yield part


def _attach(engine: Engine, slot: int, path: str, share: Sequence[FunctionPlan], mode: Mode) -> list[Attachment]:
    """One pair of links for all functions that are measured alike: by the same key, with or without returns."""
    kinds: dict[tuple[Method, Pairing], list[Site]] = {}
    for plan in share:
        kinds.setdefault((plan.method, plan.pairing), []).extend(plan.sites)
    attachments = []
    first = 0
    for (method, pairing), sites in kinds.items():
        together = FunctionPlan(
            name="all", language="", pairing=pairing, method=method, reason="", sites=tuple(dict.fromkeys(sites))
        )
        attachments.append(engine.attach(slot, path, together, first_site=first, mode=mode))
        first += len(together.sites)
    return attachments
