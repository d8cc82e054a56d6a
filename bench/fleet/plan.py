"""What a simulated fleet is to be, and what of it each simulator plays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

SERVICE = "fleet-checkout"
"""The service that the reached agents run, and that is attached."""
FUNCTION = "main.Pay"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A fleet.

    Attributes:
        agents: How many there are.
        connections: Over how many connections they report; with credentials each has its own.
        reached: How many of them the colony can call: each with a server, a port and (with credentials) a certificate.
        instances: Of the service, on all reached ones together.
        services: Others that each agent sees.
        events_per_s: Of all collectors together, in the last part.
        heartbeat_s: How often each agent is to report at most; the colony may ask for less.
        seconds: How long heartbeats, and events, are measured.
        simulators: How many processes play the agents.
        secured: Whether with TLS, certificates, signed commands.
    """

    agents: int = 10_000
    connections: int = 100
    reached: int = 100
    instances: int = 1_000
    services: int = 20
    events_per_s: int = 200_000
    heartbeat_s: float = 30.0
    seconds: int = 60
    simulators: int = 4
    secured: bool = False

    def parts(self) -> Iterator[Part]:
        """What each simulator plays; the reached ones are spread over all of them."""
        ids = [f"host-{number:05}" for number in range(self.agents)]
        for number in range(self.simulators):
            mine = ids[number :: self.simulators]
            reached = [agent_id for agent_id in ids[: self.reached] if agent_id in set(mine)]
            yield Part(
                agent_ids=tuple(mine),
                reached=tuple(reached),
                connections=max(1, len(ids[: self.connections][number :: self.simulators])),
                instances=self.instances // self.reached,
                services=self.services,
                events_per_s=self.events_per_s / self.reached,
                secured=self.secured,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The agents of one simulator.

    Attributes:
        agent_ids: Which.
        reached: Those of them that the colony can call.
        connections: Over how many connections they report.
        instances: On each reached one.
        services: That each sees.
        events_per_s: Of each collector, once events are asked for.
        secured: Whether with credentials.
        colony: HOST:PORT where it reports.
        ca: The colony's authority, PEM.
        colony_id: The colony's name in certificates.
        command_key: The public key of its commands, PEM.
        certificates: Agent id to certificate and key, PEM.
    """

    agent_ids: tuple[str, ...]
    reached: tuple[str, ...]
    connections: int
    instances: int
    services: int
    events_per_s: float
    secured: bool
    colony: str = ""
    ca: str = ""
    colony_id: str = ""
    command_key: str = ""
    certificates: dict[str, tuple[str, str]] | None = None

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """The part of such a line."""
        found: dict[str, Any] = json.loads(line)
        return cls(**{field.name: found[field.name] for field in fields(cls)})
