"""All functions of a running program attached at once, in the kernel layer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from support.loads import Load
from support.text import changed_text

from coral.kernel.cookie import MAX_SITES
from coral.kernel.engine import Attachment, Engine
from coral.model.probe import Mode, ProbeConfig, ProbeFilter
from coral.model.site import FunctionPlan, Method, Pairing, Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What was seen.

    Attributes:
        functions: That were attached.
        sites: Instructions that carried a probe.
        attach_s: How long attaching took.
        detach_s: How long detaching took, until every byte was back.
        load_s: How long the load ran in between.
        units: Of work that it did.
        counters: The kernel's, by the names of the ledger, and ``open``.
        gone: Processes that did not live on.
        changed: Places in the text of processes that are not as in their files, after the detach.
    """

    functions: int
    sites: int
    attach_s: float
    detach_s: float
    load_s: float
    units: int
    counters: dict[str, int]
    gone: tuple[int, ...]
    changed: tuple[str, ...]

    @property
    def balanced(self) -> bool:
        """Whether every call that entered is accounted for."""
        parts = ("returned", "no_return", "too_deep", "open", "unseen")
        return self.counters["entered"] == sum(self.counters[name] for name in parts)

    @property
    def good(self) -> bool:
        """Whether calls were counted, every one, and the program is as before."""
        return self.balanced and self.counters["entered"] > 0 and not self.gone and not self.changed


def attach_everything(engine: Engine, load: Load, plans: Sequence[FunctionPlan], mode: Mode, seconds: float) -> Round:
    """Attaches all plans, lets the program work, detaches.

    Blocking.

    Args:
        engine: The kernel layer.
        load: The program.
        plans: Of its functions.
        mode: ``COUNT`` for their entries alone, ``EVENTS`` for their returns too. No event is made of either: at millions of
            calls a second they are counted, and the returns paired.
        seconds: Of work.

    Raises:
        WrongAnswer: The program did something wrong.
    """
    pids = load.pids()
    slots: list[int] = []
    attachments: list[Attachment] = []
    attach_s = 0.0
    try:
        for part in _parts(plans):
            slot = engine.acquire_slot(ProbeConfig(mode=Mode.COUNT), ProbeFilter())
            slots.append(slot)
            for pid in pids:
                engine.add_member(slot, pid)
            started = time.perf_counter()
            attachments += _attach(engine, slot, str(load.image), part, mode)
            attach_s += time.perf_counter() - started
        begun = time.monotonic()
        units = load.work(seconds)
        load_s = time.monotonic() - begun
        for slot in slots:
            engine.begin_detach(slot)
    finally:
        started = time.perf_counter()
        for attachment in attachments:
            attachment.detach()
        detach_s = time.perf_counter() - started
    counted = [engine.counters(slot) for slot in slots]
    left = engine.count_open_calls()
    totals = {name: sum(one[name] for one in counted) for name in counted[0]}
    totals["open"] = sum(left.get(slot, 0) for slot in slots)
    for slot in slots:
        engine.release_slot(slot)
    now = load.pids()
    return Round(
        functions=len(plans),
        sites=sum(len(plan.entries if mode is Mode.COUNT else plan.sites) for plan in plans),
        attach_s=attach_s,
        detach_s=detach_s,
        load_s=load_s,
        units=units,
        counters=totals,
        gone=tuple(pid for pid in pids if pid not in now),
        changed=tuple(place for pid in now for place in changed_text(pid)),
    )


def _parts(plans: Sequence[FunctionPlan]) -> Iterator[list[FunctionPlan]]:
    """The plans in parts that fit one slot each: a cookie tells so many sites apart."""
    part: list[FunctionPlan] = []
    sites = 0
    for plan in plans:
        if sites + len(plan.sites) > MAX_SITES:
            yield part
            part, sites = [], 0
        part.append(plan)
        sites += len(plan.sites)
    if part:
        yield part


def _attach(engine: Engine, slot: int, path: str, plans: Sequence[FunctionPlan], mode: Mode) -> list[Attachment]:
    """One pair of links for all functions that are measured alike: by the same key, with or without returns."""
    kinds: dict[tuple[Method, Pairing], list[Site]] = {}
    for plan in plans:
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
