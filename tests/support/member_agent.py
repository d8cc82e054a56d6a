"""A synthetic agent that has joined a colony: real door, registration and renewal around collectors that a test makes up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
from support.synthetic_agent import SyntheticAgent

from coral.agent.collectors import Collectors
from coral.agent.enrolment import Membership, enrolled
from coral.agent.guard import AgentGuard
from coral.agent.processes import Processes
from coral.agent.refusals import Refusals
from coral.agent.registration import Registration
from coral.client.colony import ColonyClient
from coral.client.endpoint import Endpoint
from coral.model.service import Service
from coral.wire._generated.colony.v1 import enrolment_pb2
from coral.wire.server import Server
from coral.wire.tls import server_credentials


class MemberAgent(SyntheticAgent):
    """An agent with a membership.

    Attributes:
        membership: Its identity, which it renews.
        refusals: What it has not reported yet.
        colony: HOST:PORT of its colony, as everybody reaches it.
    """

    def __init__(self, membership: Membership, colony: str, *, services: Sequence[str] = ("checkout",)) -> None:
        super().__init__(membership.identity.agent_id, services=services)
        self.membership = membership
        self.colony = colony
        self.refusals = Refusals()
        self._work: list[asyncio.Task[None]] = []

    @classmethod
    async def join(cls, admin: Endpoint, folder: Path, agent_id: str, **fields: Any) -> MemberAgent:
        """Invites it as an admin, and joins with that."""
        async with ColonyClient(admin) as client:
            made = await client.invite(enrolment_pb2.CreateInviteRequest())
        identity = await enrolled(folder=folder, agent_id=agent_id, colony=admin.address, join=made.token)
        return cls(Membership(identity, folder), admin.address, **fields)

    def endpoint(self) -> Endpoint:
        """The colony, as it reaches it now."""
        return self.membership.identity.colony_endpoint(self.colony)

    async def report(self) -> None:
        """Registers, sends heartbeats and renews its certificate from then on."""
        services = tuple(Service(name=name, agent_id=self.agent_id, instances=1, rule="executable") for name in self.services)
        processes = SimpleNamespace(services=services, services_changed=asyncio.Event())
        registration = Registration(
            colony=self.endpoint,
            address=self.address,
            boot_id=self.boot_id,
            methods=("uprobe_multi",),
            processes=cast(Processes, processes),
            collectors=cast(Collectors, _Collectors(self)),
            refusals=self.refusals,
        )
        self._work = [
            asyncio.create_task(registration.run()),
            asyncio.create_task(self.membership.run(self.endpoint)),
        ]

    async def kill(self) -> None:
        """Dies, as the synthetic one does."""
        for task in self._work:
            task.cancel()
        if self._work:
            await asyncio.wait(self._work)
        await super().kill()

    def _make_server(self) -> Server:
        return Server(AgentGuard(self.membership.identity, boot_id=self.boot_id, refusals=self.refusals))

    def _credentials(self) -> grpc.ServerCredentials | None:
        return server_credentials(self.membership.pair, clients_of=self.membership.identity.ca.encode())


class _Collectors:
    """What a registration asks of collectors."""

    def __init__(self, agent: MemberAgent) -> None:
        self._agent = agent
        self.agent_id = agent.agent_id
        self.starting: list[str] = []

    @property
    def running(self) -> list[Any]:
        """Those that have not ended."""
        return [
            SimpleNamespace(collector_id=one.collector_id, of_colony=True)
            for one in self._agent.collectors.values()
            if not one.ended
        ]
