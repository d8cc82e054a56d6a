"""``make fuzz``: mutated images, at length.

FUZZ_ARGS: ``--cases N`` and ``--seed S`` for other ones, ``--only CASE`` for one of them with its traceback,
``--reader-cases N`` for how many also go through the agent's parser and its confined processes.
"""

from __future__ import annotations

import argparse
import secrets
import sys

from fuzz import campaign, cases, through_readers
from fuzz.seeds import seeds


def main() -> int:
    """Runs a campaign and prints what came of it; 1 when there was a defect."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Damaged ELF files, and what reading them costs.")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--reader-cases", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    images = seeds()
    if options.only is not None:
        randomness, damaged = campaign.case(options.seed, options.only, images)
        print(damaged.seed.name, *damaged.damage, sep="\n  ")
        print(cases.run(damaged, randomness))
        return 0
    print("In this code, under the limits of a reader:")
    inside = campaign.run(images, seed=options.seed, count=options.cases, jobs=options.jobs)
    print(*inside.lines(), sep="\n", flush=True)
    print("Through the agent's parser and its confined processes:")
    outside = through_readers.run(images, seed=options.seed, count=options.reader_cases)
    print(*outside.lines(), sep="\n")
    return 1 if inside.defects or outside.defects else 0


if __name__ == "__main__":
    sys.exit(main())
