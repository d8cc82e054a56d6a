"""Making the agent known to the colony, and staying known."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from importlib import metadata

import structlog

from coral.agent.collectors import Collectors
from coral.agent.lockdown import Switch
from coral.agent.processes import Processes
from coral.client.colony import ColonyClient
from coral.model.errors import CoralError, DeadlineExceeded, Unavailable
from coral.wire import convert
from coral.wire._generated.colony.v1 import registry_pb2

_FIRST_RETRY_S = 0.25
_LAST_RETRY_S = 5.0
_CALL_S = 5.0
_MIN_PAUSE_S = 0.1

_log = structlog.get_logger(__name__)


class Registration:
    """Registers, and sends heartbeats: at the pace the colony asks for, and at once when the services change.

    Args:
        colony: HOST:PORT of the colony.
        address: HOST:PORT where it reaches this agent.
        boot_id: Of this life of the agent.
        methods: Ways of attaching that this host offers.
        processes: What runs here.
        collectors: What is probed here.
        switch: Whether anything may be.
    """

    def __init__(
        self,
        *,
        colony: str,
        address: str,
        boot_id: str,
        methods: tuple[str, ...],
        processes: Processes,
        collectors: Collectors,
        switch: Switch | None = None,
    ) -> None:
        self._colony = colony
        self._address = address
        self._boot_id = boot_id
        self._methods = methods
        self._processes = processes
        self._collectors = collectors
        self._switch = switch

    async def run(self) -> None:
        """Keeps the agent registered until cancelled. A colony that is away is waited for; probes do not depend on it."""
        agent_id = self._collectors.agent_id
        pause_s = _FIRST_RETRY_S
        async with ColonyClient(self._colony, caller=f"agent:{agent_id}") as client:
            while True:
                try:
                    response = await client.register(self._request(), timeout_s=_CALL_S)
                    _log.info("registered", colony=self._colony, epoch=response.epoch)
                    pause_s = _FIRST_RETRY_S
                    await self._stay(client, response.epoch, response.heartbeat_ms / 1000)
                except (Unavailable, DeadlineExceeded) as error:
                    _log.warning("the colony is away", colony=self._colony, reason=str(error), retry_s=pause_s)
                except CoralError as error:
                    _log.error("the colony refuses this agent", colony=self._colony, reason=str(error), retry_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(_LAST_RETRY_S, 2 * pause_s)

    async def _stay(self, client: ColonyClient, epoch: int, heartbeat_s: float) -> None:
        """Sends heartbeats until the colony wants the agent to register again."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(_MIN_PAUSE_S, heartbeat_s)):
                    await self._processes.services_changed.wait()
            self._processes.services_changed.clear()
            request = registry_pb2.HeartbeatRequest(
                agent_id=self._collectors.agent_id,
                epoch=epoch,
                services=[convert.service_to(service) for service in self._processes.services],
                collectors=[collector.collector_id for collector in self._collectors.running if collector.of_colony],
                lockdown=self._lockdown,
                starting=self._collectors.starting,
            )
            response = await client.heartbeat(request, timeout_s=_CALL_S)
            if response.register_again:
                return
            await asyncio.sleep(_MIN_PAUSE_S)

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
