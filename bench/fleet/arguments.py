"""What can be said of a simulated fleet on the command line of `python -m bench`."""

from __future__ import annotations

import argparse

from bench.fleet.plan import Plan

_DEFAULT = Plan()


def add_to(parser: argparse.ArgumentParser) -> None:
    """Adds them."""
    group = parser.add_argument_group("of fleet")
    group.add_argument("--agents", type=int, default=_DEFAULT.agents, help="how many are registered")
    group.add_argument(
        "--connections", type=int, default=_DEFAULT.connections, help="over which they report, without --secured"
    )
    group.add_argument("--reached", type=int, default=_DEFAULT.reached, help="agents that are attached to")
    group.add_argument("--instances", type=int, default=_DEFAULT.instances, help="processes on those, together")
    group.add_argument("--events", type=int, default=_DEFAULT.events_per_s, help="a second, of all of them")
    group.add_argument(
        "--heartbeat", type=float, default=_DEFAULT.heartbeat_s, help="seconds from one of an agent to the next"
    )
    group.add_argument("--simulators", type=int, default=_DEFAULT.simulators, help="processes that play the agents")
    group.add_argument("--secured", action="store_true", help="TLS, a certificate and a connection for each agent")


def plan_of(chosen: argparse.Namespace) -> Plan:
    """The fleet that was asked for."""
    return Plan(
        agents=chosen.agents,
        connections=min(chosen.connections, chosen.agents),
        reached=min(chosen.reached, chosen.agents),
        instances=chosen.instances,
        events_per_s=chosen.events,
        heartbeat_s=chosen.heartbeat,
        seconds=chosen.seconds,
        simulators=chosen.simulators,
        secured=chosen.secured,
    )
