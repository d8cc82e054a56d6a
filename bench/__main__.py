"""`make bench`: what Coral costs on this machine. Quote ratios, never times: the machine is part of every figure."""

from __future__ import annotations

import argparse
import os
import platform
import sys

from bench import (
    against_bpftrace,
    attach_all,
    attach_time,
    beyond,
    big_session,
    drain,
    functions,
    help_cost,
    idle,
    ingest,
    new_instance,
    sustained,
    trust_cost,
)
from bench.fleet import arguments
from bench.fleet import run as fleet


def main() -> int:
    """Runs the benchmarks; the exit status is 0 if each kept what it promises."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rate", type=int, default=20_000, help="calls per second of the sustained run")
    parser.add_argument("--seconds", type=int, default=60, help="of the sustained run")
    parser.add_argument(
        "--only",
        choices=(
            "help",
            "attach",
            "functions",
            "trust",
            "idle",
            "drain",
            "ingest",
            "big_session",
            "new_instance",
            "sustained",
            "beyond",
            "against_bpftrace",
            "fleet",
            "attach_all",
        ),
        help="run one of them",
    )
    parser.add_argument(
        "--rows",
        type=int,
        default=int(os.environ.get("BIG_SESSION_ROWS", big_session.ROWS)),
        help="events of the big session; also BIG_SESSION_ROWS",
    )
    parser.add_argument("--server", default="", help="of attach_all: nginx, redis, postgres or caddy; all of them without")
    arguments.add_to(parser)
    chosen = parser.parse_args()
    host = f"{os.cpu_count()} CPUs, {platform.machine()}, Linux {platform.release()}"
    print(f"machine: {host}, Python {platform.python_version()}")
    results = []
    if chosen.only in (None, "help"):
        results.append(help_cost.run(times=9))
    if chosen.only in (None, "attach"):
        results.append(attach_time.run(times=40))
    if chosen.only in (None, "functions"):
        results.append(functions.run(times=9))
    if chosen.only in (None, "trust"):
        results.append(trust_cost.run(times=60))
    if chosen.only in (None, "idle"):
        results.append(idle.run(seconds=60))
    if chosen.only in (None, "drain"):
        results.append(drain.run(times=4))
    if chosen.only in (None, "ingest"):
        results.append(ingest.run(rows=2_000_000))
    if chosen.only in (None, "big_session"):
        results.append(big_session.run(rows=chosen.rows))
    if chosen.only in (None, "new_instance"):
        results.append(new_instance.run(times=30))
    if chosen.only in (None, "sustained"):
        results.append(sustained.run(rate=chosen.rate, seconds=chosen.seconds))
    if chosen.only in (None, "beyond"):
        results.append(beyond.run(seconds=8))
    if chosen.only in (None, "against_bpftrace"):
        results.append(against_bpftrace.run(rounds=3))
    if chosen.only == "fleet":  # not among the others: it takes minutes, and three simulators all that the colony leaves
        results.append(fleet.run(arguments.plan_of(chosen)))
    if chosen.only == "attach_all":  # not among the others: it analyses every function of four servers first
        results.append(attach_all.run(seconds=10, only=chosen.server))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
