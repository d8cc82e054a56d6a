"""``make soak``: faults drawn at random over sessions that come and go. SOAK_ARGS="--minutes 30 --seed S".

The first half plays all cases, on daemons that are started anew whenever a case does that or needs other surroundings. The
second half leaves those out, so that both daemons live through all of it, and judges whether they grow.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import sys
import time
from collections.abc import Iterator

from faults.cases import Case
from faults.growth import Sample, growth_faults
from faults.matrix import chosen_cases
from faults.run import Verdict, play, warm
from faults.stack import fault_stack

_STAYS_S = 240.0
"""For how long the surroundings of the first half stay as they are."""


def main() -> int:
    """Plays until the time is up; 1 when an invariant did not hold or a daemon grew."""
    parser = argparse.ArgumentParser(prog="python -m faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.minutes:g} minutes; load {os.getloadavg()[0]:.1f}", flush=True)
    began, chance = time.monotonic(), random.Random(options.seed)
    half_s = options.minutes * 30
    played = failed = 0
    for verdict in _anything(chance, until=began + half_s):
        played, failed = played + 1, failed + _told(verdict, began)
    for verdict in _one_life(chance, until=began + 2 * half_s, began=began):
        played, failed = played + 1, failed + _told(verdict, began)
    minutes = (time.monotonic() - began) / 60
    print(f"{failed} of {played} failed" if failed else f"all {played} held, in {minutes:.1f} minutes", flush=True)
    return 1 if failed else 0


def _told(verdict: Verdict, began: float) -> bool:
    """Prints a verdict; whether it is a failure."""
    print(f"[{time.monotonic() - began:6.0f} s]", *verdict.lines(), sep="\n", flush=True)
    return bool(verdict.faults)


def _anything(chance: random.Random, *, until: float) -> Iterator[Verdict]:
    """Cases of the whole matrix; what they have around them changes every few minutes."""
    cases = [case for case in chosen_cases() if case.soak]
    settings = list(dict.fromkeys(case.setting for case in cases))
    chance.shuffle(settings)
    stays_s = min(_STAYS_S, (until - time.monotonic()) / len(settings))
    while time.monotonic() < until:
        setting = settings.pop(0)
        settings.append(setting)
        mine = [case for case in cases if case.setting is setting]
        stays_until = min(until, time.monotonic() + stays_s)
        with fault_stack(setting=setting) as stack:
            before = warm(stack)
            while True:  # one at least, however long a busy machine took to begin
                case = chance.choice(mine)
                yield play(stack, case, seed=chance.randrange(1 << 32), before=before)
                if case.own_stack or time.monotonic() >= stays_until:
                    break


def _one_life(chance: random.Random, *, until: float, began: float) -> Iterator[Verdict]:
    """Cases that both daemons live through, and at the end what they took over the time."""
    cases = [case for case in chosen_cases() if case.soak and _is_lived_through(case)]
    samples: dict[str, list[Sample]] = {"colony": [], "agent": []}
    with fault_stack() as stack:
        before = warm(stack)
        while not samples["agent"] or time.monotonic() < until:
            verdict = play(stack, chance.choice(cases), seed=chance.randrange(1 << 32), before=before)
            for name, taken in verdict.footprints.items():
                samples[name].append(Sample(at_s=time.monotonic() - began, taken=taken))
            yield verdict
    faults, notes = [], []
    for name, taken in samples.items():
        if len({sample.taken.pid for sample in taken}) > 1:
            faults.append(f"{name} did not live through it")
        faults += growth_faults(name, taken)
        notes += [f"{name} after {sample.at_s:.0f} s: {sample.taken}" for sample in taken[:: max(1, len(taken) // 12)]]
    yield Verdict(case="growth over one life", seconds=until - began, rates=[], notes=notes, faults=faults)


def _is_lived_through(case: Case) -> bool:
    return case.setting is None and not case.own_stack and not case.restarts


if __name__ == "__main__":
    sys.exit(main())
