"""Making the agent known to the colony, and staying known."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata

import structlog

from coral.agent.collectors import Collectors
from coral.agent.lockdown import Switch
from coral.agent.pace import Pace
from coral.agent.processes import Processes
from coral.agent.refusals import Refusal, Refusals
from coral.client.colony import ColonyClient
from coral.client.endpoint import Endpoint
from coral.model.errors import CoralError, DeadlineExceeded, Unavailable
from coral.wire import convert
from coral.wire._generated.colony.v1 import registry_pb2

_CALL_S = 5.0

_log = structlog.get_logger(__name__)


class Registration:
    """Registers, and sends heartbeats: at the pace the colony asks for, and at once when the services change.

    Args:
        colony: The colony as it is reached now; what that is shown changes when the agent's certificate is renewed.
        address: HOST:PORT where it reaches this agent.
        boot_id: Of this life of the agent.
        methods: Ways of attaching that this host offers.
        processes: What runs here.
        collectors: What is probed here.
        switch: Whether anything may be.
        refusals: What this agent refused to do, for the colony's audit log.
    """

    def __init__(
        self,
        *,
        colony: Callable[[], Endpoint],
        address: str,
        boot_id: str,
        methods: tuple[str, ...],
        processes: Processes,
        collectors: Collectors,
        switch: Switch | None = None,
        refusals: Refusals | None = None,
    ) -> None:
        self._colony = colony
        self._address = address
        self._boot_id = boot_id
        self._methods = methods
        self._processes = processes
        self._collectors = collectors
        self._switch = switch
        self._refusals = refusals or Refusals()
        self._pace = Pace()
        self._line: tuple[Endpoint, ColonyClient] | None = None

    async def run(self) -> None:
        """Keeps the agent registered until cancelled. A colony that is away is waited for; probes do not depend on it."""
        try:
            await self._keep()
        finally:
            await self._hang_up()

    async def _keep(self) -> None:
        while True:
            colony = self._colony().address
            try:
                response = await (await self._client()).register(self._request(), timeout_s=_CALL_S)
                _log.info("registered", colony=colony, epoch=response.epoch)
                self._pace.registered()
                self._pace.told(response.heartbeat_ms)
                await self._stay(response.epoch)
                continue
            except (Unavailable, DeadlineExceeded) as error:
                pause_s = self._pace.retry_s()
                _log.warning("the colony is away", colony=colony, reason=str(error), retry_s=round(pause_s, 2))
                await self._hang_up_if_dead(error)
            except CoralError as error:
                pause_s = self._pace.retry_s()
                _log.error("the colony refuses this agent", colony=colony, reason=str(error), retry_s=round(pause_s, 2))
            await asyncio.sleep(pause_s)

    async def _client(self) -> ColonyClient:
        """The connection, a new one when the certificate was renewed."""
        endpoint = self._colony()
        if self._line is None or self._line[0] != endpoint:
            await self._hang_up()
            self._line = endpoint, ColonyClient(endpoint, caller=f"agent:{self._collectors.agent_id}")
        return self._line[1]

    async def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            await line[1].close()

    async def _hang_up_if_dead(self, error: CoralError) -> None:
        """Connects anew after a call that nobody answered: its connection may be dead without either end knowing."""
        if isinstance(error, DeadlineExceeded):
            await self._hang_up()

    async def _stay(self, epoch: int) -> None:
        """Sends heartbeats until the colony wants the agent to register again."""
        pause_s = self._pace.first_s()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._processes.services_changed.wait()
            self._processes.services_changed.clear()
            refusals = self._refusals.take()
            request = registry_pb2.HeartbeatRequest(
                agent_id=self._collectors.agent_id,
                epoch=epoch,
                services=[convert.service_to(service) for service in self._processes.services],
                refusals=[_refusal(refusal) for refusal in refusals],
                collectors=[collector.collector_id for collector in self._collectors.running if collector.of_colony],
                starting=self._collectors.starting,
                lockdown=self._lockdown,
            )
            try:
                response = await (await self._client()).heartbeat(request, timeout_s=_CALL_S)
            except (Unavailable, DeadlineExceeded) as error:
                # Not a registration at once, which costs more: a colony that is back says whether it needs one.
                self._refusals.put_back(refusals)
                pause_s = self._pace.retry_s()
                _log.warning(
                    "the colony is away", colony=self._colony().address, reason=str(error), retry_s=round(pause_s, 2)
                )
                await self._hang_up_if_dead(error)
                await asyncio.sleep(pause_s)
                pause_s = 0.0
                continue
            except CoralError:
                self._refusals.put_back(refusals)
                raise
            if response.register_again:
                return
            self._pace.registered()
            self._pace.told(response.heartbeat_ms)
            pause_s = self._pace.next_s()
            await asyncio.sleep(self._pace.least_s())

    def _request(self) -> registry_pb2.RegisterAgentRequest:
        return registry_pb2.RegisterAgentRequest(
            agent_id=self._collectors.agent_id,
            address=self._address,
            version=metadata.version("coral-debugger"),
            hostname=socket.gethostname(),
            boot_id=self._boot_id,
            services=[convert.service_to(service) for service in self._processes.services],
            kernel=os.uname().release,
            methods=self._methods,
            lockdown=self._lockdown,
        )

    @property
    def _lockdown(self) -> str:
        return self._switch.text if self._switch is not None else ""


def _refusal(refusal: Refusal) -> registry_pb2.AgentRefusal:
    return registry_pb2.AgentRefusal(
        time=convert.timestamp(refusal.time_ns),
        method=refusal.method,
        principal=refusal.principal,
        address=refusal.host,
        code=refusal.code,
        message=refusal.message,
        count=refusal.count,
    )
