"""``python -m faults``: the fault matrix. ``--only 'kill*'`` for some cases, ``--rounds 3``, ``--list`` for their names."""

from __future__ import annotations

import argparse
import os
import secrets
import sys

from faults.matrix import chosen_cases, round_of


def main() -> int:
    """Plays the cases and prints a verdict each; 1 when an invariant did not hold."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--only", action="append", metavar="PATTERN", help="cases whose names match; repeatable")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--list", action="store_true", help="print the names alone")
    options = parser.parse_args()
    chosen = chosen_cases(options.only)
    if options.list:
        print(*(f"{case.name:40} {(case.run.__doc__ or '').splitlines()[0]}" for case in chosen), sep="\n")
        return 0
    if not chosen:
        sys.exit(f"no case is called like {options.only}")
    load = os.getloadavg()[0]
    print(f"seed {options.seed}, {len(chosen)} cases, {options.rounds} rounds; load {load:.1f}", flush=True)
    failed = 0
    for number in range(options.rounds):
        for verdict in round_of(chosen, seed=options.seed + number):
            print(*verdict.lines(), sep="\n", flush=True)
            failed += bool(verdict.faults)
    print(f"{failed} of {len(chosen) * options.rounds} failed" if failed else "all held", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
