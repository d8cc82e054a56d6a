"""Every function of a running server at once: is it alive, is it right, and how long do attaching and detaching take?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from corpus.everything import Round, attach_everything
from corpus.plans import all_plans
from corpus.recipes import caddy
from support import loads

from coral.kernel.engine import Engine
from coral.model.probe import Mode
from coral.model.site import Method

_OPEN_CALLS = 1 << 18

SERVERS: dict[str, Callable[[Path], AbstractContextManager[loads.Load]]] = {
    "nginx": loads.nginx,
    "redis": loads.redis,
    "postgres": loads.postgresql,
    "caddy": lambda folder: loads.caddy(folder, caddy().obtain()),
}


def run(*, seconds: float, only: str = "") -> bool:
    """Prints the figures; whether every server stayed alive and right, and nothing was left in its text.

    Args:
        seconds: Of load with everything attached, for entries alone and for entries with returns.
        only: One of the servers; all of them when empty.
    """
    print("attach_all: all functions of a running server at once, in the kernel layer")
    results = []
    engine = Engine(ring_bytes=1 << 20, max_open_calls=_OPEN_CALLS)
    try:
        for name, start in SERVERS.items():
            if only in ("", name):
                with tempfile.TemporaryDirectory(prefix="coral-bench-") as folder, start(Path(folder)) as load:
                    results.append(_one(engine, load, seconds))
    finally:
        engine.close()
    return bool(results) and all(results)


def _one(engine: Engine, load: loads.Load, seconds: float) -> bool:
    plans = all_plans(load.image)
    exact = sum(plan.method is Method.RET_SITES for plan in plans)
    rate = load.work(seconds / 3) / (seconds / 3)
    print(f"  {load.name}: {len(plans):,} functions, {exact:,} with returns; {rate:,.0f} units/s without probes")
    good = True
    for mode, what in ((Mode.COUNT, "entries"), (Mode.EVENTS, "entries and returns")):
        seen = attach_everything(engine, load, plans, mode, seconds)
        _print(what, seen, rate)
        good = good and seen.good
    status = load.stop()
    print(f"    exit status {status}")
    return good and status == 0


def _print(what: str, seen: Round, rate: float) -> None:
    scale = 10_000 / seen.functions
    print(
        f"    {what}: {seen.sites:,} sites attached in {seen.attach_s:.2f} s, detached in {seen.detach_s:.2f} s "
        f"({seen.attach_s * scale:.2f} and {seen.detach_s * scale:.2f} s per 10,000 functions)"
    )
    names = {"entered": "calls", "unseen": "of entries only", "no_return": "without return", "orphan_returns": "orphans"}
    shown = ("entered", "returned", "unseen", "no_return", "too_deep", "open", "orphan_returns")
    counts = ", ".join(f"{seen.counters[name]:,} {names.get(name, name.replace('_', ' '))}" for name in shown)
    print(f"      {seen.load_s:.0f} s of load: {counts}; {'balanced' if seen.balanced else 'NOT BALANCED'}")
    print(
        f"      answers right, at {seen.units / seen.load_s / rate:.1%} of the speed; processes gone: {len(seen.gone)}; "
        f"places changed in their text: {len(seen.changed)}"
    )
