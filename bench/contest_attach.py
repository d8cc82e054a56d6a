"""How long attaching takes, beside bpftrace: one function, until its breakpoint is there and its first event, and many."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from support.large_program import large_program
from support.text import changed_text

from bench import contest
from bench.stack import CORAL, compiled, dev
from coral.client.colony import ColonyClient
from coral.kernel.engine import Engine
from coral.model.addresses import FileOffset
from coral.model.probe import Mode, ProbeConfig, ProbeFilter
from coral.model.site import FunctionPlan, Method, Pairing, Site, SiteKind
from coral.wire._generated.colony.v1 import debug_pb2

_MANY = (1_000, 10_000)
_PATIENCE_S = 90.0


def run(*, rounds: int) -> None:
    """Prints the figures of one function, then of many.

    Args:
        rounds: Of the figures of one function.
    """
    _one(rounds)
    worth = True
    for functions in _MANY:
        worth = _many(functions, bpftrace=worth)


def _one(rounds: int) -> None:
    """Starting a command to the breakpoint, and to the first event of a program that calls 1,000 times a second."""
    program = compiled("rate")
    service = f"bench-contest-{os.getpid()}"
    taken: dict[str, list[float]] = {
        name: [] for name in ("coral attach", "bpftrace attach", "coral event", "bpftrace event")
    }
    with dev() as coral:
        target = subprocess.Popen([program, "1000", "600"], env=os.environ | {"CORAL_SERVICE": service})
        probe = f'uprobe:{program}:work {{ printf("%d\\n", tid); }}'
        command = [str(CORAL), "--colony", coral.colony, "debug", "attach", service, "-f", "work", "-d", "60s"]
        follow = [*command, "--follow", "-o", "jsonl"]
        try:
            for turn in range(rounds + 1):  # the first reads the image, and warms the caches of both
                for name in ("coral", "bpftrace"):
                    begun_s = time.perf_counter()
                    started = _popen(follow) if name == "coral" else contest.start_bpftrace(probe)
                    attached_s = _until(lambda: bool(changed_text(target.pid)), begun_s)
                    event_s = contest.first_line_s(started, begun_s)
                    contest.stop_bpftrace(started)  # as Ctrl-C ends either
                    _until(lambda: not changed_text(target.pid), begun_s)
                    if turn:
                        taken[f"{name} attach"].append(attached_s)
                        taken[f"{name} event"].append(event_s)
            direct = asyncio.run(_requests(coral.colony, service, rounds))
        finally:
            target.kill()
            target.wait()
    print(f"  from starting the command, {rounds} times in turns, image known: bpftrace / Coral")
    for what, text in (("attach", "breakpoint in the code"), ("event", "first event printed")):
        own, other = (statistics.median(taken[f"{name} {what}"]) for name in ("coral", "bpftrace"))
        print(f"    {text:24} {other / own:5.2f}   Coral {own * 1e3:.0f} ms, bpftrace {other * 1e3:.0f} ms")
    active_s, event_s = (statistics.median(column) for column in zip(*direct, strict=True))
    print(
        f"    Coral, over a connection that stands: active after {active_s * 1e3:.0f} ms, first event {event_s * 1e3:.0f} ms"
    )


async def _requests(colony: str, service: str, rounds: int) -> list[tuple[float, float]]:
    """Seconds from a request over a connection that stands to its answer, and to the first event."""
    taken = []
    async with ColonyClient(colony) as client:
        for _ in range(rounds):
            begun_s = time.perf_counter()
            answer = await client.attach(debug_pb2.AttachUprobeRequest(service_name=service, function_name="work"))
            active_s = time.perf_counter() - begun_s
            async for batch in client.follow(answer.session_id, after={}, timeout_s=_PATIENCE_S):
                if batch.arrow_ipc:
                    break
            taken.append((active_s, time.perf_counter() - begun_s))
            await client.detach(answer.session_id)
    return taken


def _popen(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _until(holds: Callable[[], bool], begun_s: float) -> float:
    """Seconds from ``begun_s`` to when something holds; more than the patience if it never did."""
    while not holds():
        if time.perf_counter() - begun_s > _PATIENCE_S:
            break
        time.sleep(0.001)
    return time.perf_counter() - begun_s


def _many(functions: int, *, bpftrace: bool) -> bool:
    """Entries of so many functions of one running program; whether ten times as many are worth bpftrace's time."""
    with tempfile.TemporaryDirectory(prefix="coral-bench-") as folder:
        program = large_program(Path(folder), functions=functions, data_bytes=64)
        entries = _entries(program)
        process = subprocess.Popen([program])
        try:
            own = _coral(program, process.pid, entries)
            other = _bpftrace(program, process.pid, functions) if bpftrace else None
        finally:
            process.kill()
            process.wait()
    print(f"  entries of {functions:,} functions of a running program: bpftrace / Coral")
    if other is None:
        print(f"    Coral attach {own[0]:.3f} s, detach {own[1]:.3f} s; bpftrace not run: it would take minutes")
        return False
    for what, mine, theirs in zip(("attach", "detach"), own, other, strict=True):
        bound = "more than " if theirs > _PATIENCE_S else ""
        least = min(theirs, _PATIENCE_S)
        print(f"    {what} {least / mine:8.0f}   Coral {mine:.3f} s, bpftrace {bound}{least:.1f} s")
    return sum(other) * 10 < _PATIENCE_S


def _entries(program: Path) -> tuple[Site, ...]:
    """The first instruction of every function, which is a push in all of them."""
    image = contest.image_of(program)
    text = contest.section_of(image, ".text")
    return tuple(
        Site(offset=FileOffset(symbol.value - text.virtual_address + text.offset), kind=SiteKind.ENTRY, reason="")
        for symbol in image.symtab_symbols
        if str(symbol.name).startswith("_ZN4shop")
    )


def _coral(program: Path, pid: int, entries: tuple[Site, ...]) -> tuple[float, float]:
    engine = Engine(ring_bytes=1 << 20)
    whole = FunctionPlan(
        name="all", language="c", pairing=Pairing.STACK_POINTER, method=Method.ENTRY_ONLY, reason="", sites=entries
    )
    try:
        slot = engine.acquire_slot(ProbeConfig(mode=Mode.COUNT), ProbeFilter())
        engine.add_member(slot, pid)
        begun_s = time.perf_counter()
        attachment = engine.attach(slot, str(program), whole, first_site=0, mode=Mode.COUNT)
        attach_s = _until(lambda: len(changed_text(pid)) == len(entries), begun_s)
        begun_s = time.perf_counter()
        attachment.detach()
        return attach_s, _until(lambda: not changed_text(pid), begun_s)
    finally:
        engine.close()


def _bpftrace(program: Path, pid: int, functions: int) -> tuple[float, float]:
    begun_s = time.perf_counter()
    started = contest.start_bpftrace(f"uprobe:{program}:_ZN4shop* {{ @ = count(); }}", probes=2 * functions)
    attach_s = _until(lambda: len(changed_text(pid)) == functions or started.poll() is not None, begun_s)
    if started.poll() is not None:
        raise RuntimeError(f"bpftrace ended by itself with {started.returncode}")
    begun_s = time.perf_counter()
    contest.stop_bpftrace(started, patience_s=_PATIENCE_S)
    return attach_s, _until(lambda: not changed_text(pid), begun_s)
