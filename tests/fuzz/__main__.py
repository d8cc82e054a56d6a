"""``make fuzz``: what nobody meant to write or to send, at length.

FUZZ_ARGS: ``--target NAME`` for one of the targets (repeatable; all without), ``--seconds N`` for how long each goes on,
``--seed S`` for the cases of an earlier run. Of the target ``elf``: ``--cases N`` instead of seconds, ``--only CASE`` for one
of them with its traceback, ``--reader-cases N`` for how many also go through the agent's parser and its confined processes.
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys

from fuzz import audit, campaign, cases, flood, names, policy, rpc, through_readers, timed, tokens
from fuzz.seeds import seeds

_CASES = {"names": names.case, "tokens": tokens.case, "audit": audit.case, "policy": policy.case}
TARGETS = ("elf", "rpc", "flood", *_CASES)


def main() -> int:
    """Runs the targets and prints what came of them; 1 when there was a defect."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Hostile files, requests, texts and credentials.")
    parser.add_argument("--target", choices=TARGETS, action="append")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--reader-cases", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int, help="one case of the one target")
    options = parser.parse_args()
    targets = options.target or TARGETS
    print(f"seed {options.seed}", flush=True)
    if options.only is not None:
        return _only(targets[0], options.seed, options.only)
    defects = 0
    for target in targets:
        print(f"{target}:", flush=True)
        for report in _run(target, options):
            print(*report.lines(), sep="\n", flush=True)
            defects += len(report.defects)
    return 1 if defects else 0


def _run(target: str, options: argparse.Namespace) -> list[campaign.Report]:
    if target == "elf":
        images = seeds()
        return [
            campaign.run(images, seed=options.seed, count=options.cases, jobs=options.jobs),
            through_readers.run(images, seed=options.seed, count=options.reader_cases),
        ]
    if target == "rpc":
        return [rpc.run(seed=options.seed, seconds=options.seconds)]
    if target == "flood":
        return [flood.run(connections=10_000)]
    return [timed.run(_CASES[target], seed=options.seed, seconds=options.seconds, jobs=options.jobs)]


def _only(target: str, seed: int, number: int) -> int:
    """One case again, in this process."""
    if target in _CASES:
        print(_CASES[target](random.Random(f"{seed}:{number}")))
    elif target == "elf":
        randomness, damaged = campaign.case(seed, number, seeds())
        print(damaged.seed.name, *damaged.damage, sep="\n  ")
        print(cases.run(damaged, randomness))
    else:
        sys.exit(f"a case of {target} depends on those before it: run it with the seed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
