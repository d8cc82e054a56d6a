"""How the colony reaches an agent: over which kind of connection, and what it puts on each command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from coral.client.agent import Sign
from coral.client.endpoint import Endpoint
from coral.model.service import Agent
from coral.trust.authority import agent_dns
from coral.trust.colony_keys import ColonyKeys
from coral.trust.commands import Signer, Target


class Dialling(Protocol):
    """What the pool asks before it calls an agent."""

    def endpoint(self, agent: Agent) -> Endpoint:
        """Where it is and how it is known; another one than before means a new connection."""
        ...

    def sign(self, agent: Agent) -> Sign | None:
        """Signs commands to the present life of an agent; None for no signatures."""
        ...


class PlainDialling:
    """Plain text, unsigned: for agents on this host that ask for no credentials."""

    def endpoint(self, agent: Agent) -> Endpoint:
        """Its address."""
        return Endpoint(address=agent.address)

    def sign(self, agent: Agent) -> Sign | None:
        """Nothing to sign with."""
        return None


class MutualDialling:
    """Mutual TLS: the colony shows its certificate, and takes nobody for an agent who has not that agent's.

    Args:
        keys: The keys as they are now; the certificate among them is renewed from time to time.
    """

    def __init__(self, keys: Callable[[], ColonyKeys]) -> None:
        self._keys = keys
        self._signer = Signer(keys().command_key)

    def endpoint(self, agent: Agent) -> Endpoint:
        """Its address, with the name that only its own certificate has: an address that leads to another agent is no use."""
        keys = self._keys()
        return Endpoint(
            address=agent.address,
            ca_pem=keys.authority.pair.certificate,
            certificate=(keys.server.certificate, keys.server.key),
            server_name=agent_dns(agent.agent_id),
        )

    def sign(self, agent: Agent) -> Sign | None:
        """For that agent, in the life that it has registered."""
        target = Target(agent_id=agent.agent_id, boot_id=agent.boot_id)
        return lambda method, raw: self._signer.sign(target, method, raw)
