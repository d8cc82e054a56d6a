"""Side by side with bpftrace in one run: cost of a call, attach latency, many functions at once, lossless events a second.

Costs are CPU time of the probed program for one call, less what the call costs without a probe, in turns within each round.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench import contest, contest_attach, contest_rate
from coral.kernel.engine import Engine
from coral.model.probe import Mode
from coral.model.site import FunctionPlan

CALLS = 30_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One function of one program.

    Attributes:
        name: What is special about it.
        path: The program.
        function: What Coral is told.
        asked: What the program is told.
        symbol: What bpftrace is told.
        hook: Whether bpftrace's return probe leaves the program alive.
    """

    name: str
    path: Path
    function: str
    asked: str
    symbol: str
    hook: bool


def run(*, rounds: int) -> bool:
    """Prints the figures; whether every call was counted by both.

    Args:
        rounds: Of each measurement.
    """
    if shutil.which("bpftrace") is None:
        print("against bpftrace: not run, there is no bpftrace here (`make bench` installs it as root on Debian)")
        return True
    version = subprocess.run(["bpftrace", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    model = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), "unknown CPU")
    print(f"against bpftrace: {version}, {shutil.which('bpftrace')}; {model}")
    print(
        f"  cost of one call, {rounds} rounds of {CALLS:,} calls in turns: "
        "the cost beside Coral's, more than 1 where Coral is cheaper"
    )
    good = True
    engine = Engine()
    try:
        for case in _cases():
            good &= _case(engine, case, rounds)
    finally:
        engine.close()
    contest_attach.run(rounds=rounds)
    good &= contest_rate.run()
    return good


def _cases() -> list[Case]:
    plain = contest.c_program("calls", "gcc", "-fcf-protection=none")
    marked = contest.c_program("calls", "gcc", "-fcf-protection=branch")
    cpp = contest.c_program("calls", "g++", "-fcf-protection=none")
    go = contest.go_program()
    return [
        Case(name="C, begins with push", path=plain, function="work", asked="work", symbol="work", hook=True),
        Case(name="C, endbr64 then push", path=marked, function="work", asked="work", symbol="work", hook=True),
        Case(
            name="C, no push at all",
            path=contest.c_program("calls", "gcc", "-fcf-protection=branch", "-g0"),
            function="bare",
            asked="bare",
            symbol="bare",
            hook=True,
        ),
        Case(name="C++", path=cpp, function="work", asked="work", symbol="_Z4workl", hook=False),
        Case(name="Go", path=go, function="main.work", asked="work", symbol="main.work", hook=False),
    ]


def _case(engine: Engine, case: Case, rounds: int) -> bool:
    chosen = contest.plan_of(case.path, case.function)
    ways, caller = _ways(engine, case, chosen)
    costs: dict[str, list[float]] = {name: [] for name in ways}
    base: list[float] = []
    good = True
    try:
        caller.cpu_ns(case.asked, CALLS)
        names = list(ways)
        for turn in range(rounds):
            base.append(caller.cpu_ns(case.asked, CALLS))
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                with ways[name]() as probe:
                    costs[name].append(caller.cpu_ns(case.asked, CALLS) - base[-1])
                    if callable(probe):
                        good &= probe()["entered"] == CALLS
    finally:
        caller.close()
    _print(case, chosen, costs, statistics.median(base))
    return good


def _ways(
    engine: Engine, case: Case, chosen: FunctionPlan
) -> tuple[dict[str, Callable[[], AbstractContextManager[object]]], contest.Caller]:
    """The contestants. bpftrace at its own place (the symbol) and, where that is another one, at Coral's."""
    entry, *exits = contest.with_symbols(case.path, [site.offset for site in (*chosen.entries, *chosen.exits)])
    symbol = f"uprobe:{case.path}:{case.symbol}"
    at_entry = f"uprobe:{case.path}:{entry}"
    at_exits = ",".join(f"uprobe:{case.path}:{exit}" for exit in exits)
    caller = contest.Caller(case.path)
    begin = "{ @began[tid] = nsecs; }"
    end = "/@began[tid]/ { @took = hist(nsecs - @began[tid]); delete(@began[tid]); }"
    both = 1 + len(exits)
    ways: dict[str, Callable[[], AbstractContextManager[object]]] = {
        "count: Coral": lambda: contest.coral(engine, caller, chosen, Mode.COUNT),
        "count: bpftrace": lambda: contest.bpftrace(caller, f"{symbol} {{ @ = count(); }}", sites=1),
        "count: bpftrace at Coral's place": lambda: contest.bpftrace(caller, f"{at_entry} {{ @ = count(); }}", sites=1),
        "returns: Coral": lambda: contest.coral(engine, caller, chosen, Mode.EVENTS),
        "returns: bpftrace at Coral's places": lambda: contest.bpftrace(
            caller, f"{at_entry} {begin} {at_exits} {end}", sites=both
        ),
    }
    if case.hook:
        hooked = f"{symbol} {begin} uretprobe:{case.path}:{case.symbol} {end}"
        ways["returns: bpftrace's uretprobe"] = lambda: contest.bpftrace(caller, hooked, sites=1)
    return ways, caller


def _print(case: Case, chosen: FunctionPlan, costs: dict[str, list[float]], base_ns: float) -> None:
    print(
        f"  {case.name}: entry at {chosen.entries[0].reason or 'its first instruction'}, {len(chosen.exits)} exits; "
        f"a call without probe {base_ns:.0f} ns"
    )
    middle = {name: statistics.median(found) for name, found in costs.items()}
    for kind in ("count", "returns"):
        own = middle[f"{kind}: Coral"]
        _line(f"{kind}: Coral", costs[f"{kind}: Coral"], 1.0)
        for name in costs:
            if name.startswith(f"{kind}: bpftrace"):
                _line(name, costs[name], middle[name] / own)
    if not case.hook:
        print("    returns: bpftrace's uretprobe                 not run: it ends such programs (exceptions; moving stacks)")


def _line(name: str, found: list[float], ratio: float) -> None:
    low, high = min(found), max(found)
    print(f"    {name:45} {ratio:5.2f}   {statistics.median(found) / 1e3:6.2f} us ({low / 1e3:.2f} to {high / 1e3:.2f})")


def _cpuinfo() -> list[str]:
    return Path("/proc/cpuinfo").read_text().splitlines()
