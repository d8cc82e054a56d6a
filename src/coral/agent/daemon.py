"""The agent as a whole: its parts made, wired, run and ended in the right order."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from ulid import ULID

from coral.agent.attach import Attacher
from coral.agent.collectors import Collectors
from coral.agent.debug_files import DebugFiles
from coral.agent.enrolment import Membership, enrolled
from coral.agent.guard import AgentGuard
from coral.agent.images import ServiceImages
from coral.agent.inspect_servicer import InspectServicer
from coral.agent.lockdown import LockdownFiles, Switch
from coral.agent.naming import Naming
from coral.agent.policy import LocalPolicy
from coral.agent.processes import Processes
from coral.agent.reachable import reachable_at
from coral.agent.refusals import Refusals
from coral.agent.registration import Registration
from coral.agent.resolve import Resolver
from coral.agent.servicer import DebugServicer
from coral.agent.trap_cost import TrapCosts
from coral.client.endpoint import Endpoint
from coral.config.settings import AgentSettings
from coral.elf.image import ImageKey
from coral.elf.parser import Parser
from coral.kernel.engine import Engine
from coral.model.errors import FailedPrecondition
from coral.model.text import check_name
from coral.procfs.service import ServiceRule
from coral.procfs.table import ProcessTable
from coral.telemetry.exposed import metrics_served
from coral.telemetry.lifecycle import announce_ready, room_for, stop_event
from coral.telemetry.service_manager import ServiceManager
from coral.telemetry.vitals import Trouble, Vitals
from coral.wire._generated.mesh.v1 import ebpf_pb2_grpc, inspect_pb2_grpc
from coral.wire.address import require_loopback, split_address
from coral.wire.server import Server
from coral.wire.tls import server_credentials

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_SERVICES = ("coral.mesh.v1.DebugService", "coral.mesh.v1.InspectService")
_STOP_S = 0.5
_MAX_CONNECTIONS = 256
"""A colony has one. Whoever else connects must not use up the descriptors that files and probes take."""
_LOOK_S = 1.0

_log = structlog.get_logger(__name__)


async def run(settings: AgentSettings, *, insecure: bool, ready_fd: int | None, parser: Parser | None = None) -> None:
    """Runs the agent of this host until SIGTERM or SIGINT; raises what ``serve`` and ``enrolled`` do.

    Args:
        settings: As for ``serve``.
        insecure: Whether it takes commands from whoever reaches it, on loopback, instead of from a colony that it has joined.
        ready_fd: Where to say that it is ready; None for nowhere.
        parser: What reads programs, started already; None to start it now.
    """
    rules = [ServiceRule(**pattern.model_dump()) for pattern in settings.services]
    manager = ServiceManager.of()
    await serve(
        settings,
        table=ProcessTable(rules=rules),
        stop=stop_event(),
        on_ready=lambda facts: announce_ready(facts, ready_fd, manager),
        manager=manager,
        lockdown=LockdownFiles(settings.state_dir),
        enrol=None if insecure else lambda: _enrol(settings),
        parser=parser,
    )


async def _enrol(settings: AgentSettings) -> Membership:
    folder = Path(settings.state_dir)
    identity = await enrolled(
        folder=folder,
        agent_id=agent_id_of(settings),
        colony=settings.colony,
        join=settings.join.get_secret_value(),
    )
    return Membership(identity, folder)


async def serve(
    settings: AgentSettings,
    *,
    table: ProcessTable,
    stop: asyncio.Event,
    on_ready: Callable[[Mapping[str, object]], None],
    lockdown: LockdownFiles | None = None,
    enrol: Callable[[], Awaitable[Membership]] | None = None,
    parser: Parser | None = None,
    manager: ServiceManager | None = None,
) -> None:
    """Runs an agent until ``stop`` is set. When it returns, no probe is left in any process.

    Args:
        settings: Where to listen, where the colony is, and the limits.
        table: The processes that it is for.
        stop: Set by whoever wants it to end.
        on_ready: Called with what it is and where it serves, once it does.
        lockdown: Where the kill switch of the host is looked for; None when it has none.
        enrol: Finds out which colony it belongs to; None for an agent that asks nobody for credentials.
        parser: What reads programs, started already; None to start it now.
        manager: Who started this process, and ends it when it is not told that it lives; None for nobody.

    Raises:
        FailedPrecondition: This host cannot run it, its address is not loopback although it asks for no credentials, or the
            port is taken.
        InvalidArgument: An address is none.
    """
    if enrol is None:
        require_loopback(settings.listen)
    split_address(settings.colony)
    if settings.metrics_listen:
        split_address(settings.metrics_listen)
    agent_id = agent_id_of(settings)
    # What reads files is started before gRPC is: this process itself forks no more after that.
    # Nor has what it forks ever seen a key.
    async with parser or Parser() as parser:
        membership = await enrol() if enrol is not None else None
        engine = await asyncio.to_thread(Engine, ring_bytes=settings.ring_bytes, max_open_calls=settings.max_open_calls)
        try:
            await _warm(parser)
            processes = Processes(table, agent_id)
            debug_files = DebugFiles(settings.debug_folders)
            policy = LocalPolicy.of(settings)
            switch = Switch(lockdown, engine) if lockdown is not None else None
            if switch is not None:
                await asyncio.to_thread(switch.look)
            resolver = Resolver(parser, debug_files)
            collectors = Collectors(
                agent_id=agent_id,
                engine=engine,
                attacher=Attacher(engine, resolver, processes, policy),
                processes=processes,
                window_bytes=settings.window_bytes,
                limit=settings.max_collectors,
                max_sites=settings.max_sites,
                session_events_per_s=settings.session_events_per_s,
                events_per_s=settings.events_per_s,
                switch=switch,
            )
            boot_id, refusals = str(ULID()), Refusals()
            guard = AgentGuard(membership.identity, boot_id=boot_id, refusals=refusals) if membership else None
            server = Server(guard, max_connections=room_for(_MAX_CONNECTIONS))
            ebpf_pb2_grpc.add_DebugServiceServicer_to_server(DebugServicer(collectors, policy), server.grpc)
            images, naming = ServiceImages(parser, processes, debug_files, policy), Naming(resolver, processes, policy)
            costs = TrapCosts(engine)
            inspector = InspectServicer(parser, images, costs, naming)
            inspect_pb2_grpc.add_InspectServiceServicer_to_server(inspector, server.grpc)
            address = await server.start(
                settings.listen, services=_SERVICES, flag="--listen", credentials=_credentials(membership)
            )

            def colony() -> Endpoint:
                plain = Endpoint(address=settings.colony)
                return membership.identity.colony_endpoint(settings.colony) if membership else plain

            registration = Registration(
                colony=colony,
                address=reachable_at(advertise=settings.advertise, bound=address, colony=settings.colony),
                boot_id=boot_id,
                methods=engine.methods,
                processes=processes,
                collectors=collectors,
                switch=switch,
                refusals=refusals,
            )
            vitals = Vitals(
                {"pump": lambda: collectors.pump.trouble, "reader": lambda: _blind(parser)},
                report=server.serve,
                manager=manager,
            )

            def metrics() -> Iterable[Metric]:
                from coral.agent.metrics import of_agent

                return of_agent(
                    collectors=collectors,
                    processes=processes,
                    costs=costs,
                    switch=switch,
                    calls=server.calls,
                    vitals=vitals,
                )

            try:
                async with metrics_served(settings.metrics_listen, metrics):
                    _log.info("agent is ready", agent_id=agent_id, address=address, colony=settings.colony, pid=os.getpid())
                    on_ready({"ready": True, "agent": address, "agent_id": agent_id, "pid": os.getpid()})
                    watching = (
                        [switch.run(collectors.lock_down, processes.services_changed.set)] if switch is not None else []
                    )
                    if membership is not None:
                        watching.append(membership.run(colony))
                    watching += [_end_when_blind(parser, collectors, stop), vitals.run()]
                    await _until(stop, collectors.run(), processes.run(), registration.run(), *watching)
            finally:
                await server.stop(_STOP_S)
        finally:
            engine.close()


def _blind(parser: Parser) -> Trouble | None:
    return Trouble(reason=f"programs cannot be read any more: {parser.lost}") if parser.lost else None


def _credentials(membership: Membership | None) -> grpc.ServerCredentials | None:
    """Mutual TLS with whom the colony's authority knows; plain text without a colony."""
    return server_credentials(membership.pair, clients_of=membership.identity.ca.encode()) if membership else None


async def _warm(parser: Parser) -> None:
    """Has one file read, so that the imports of what reads (half a second) are not part of somebody's first attach.

    Raises:
        FailedPrecondition: Files cannot be read in a confined process here; the agent does not start without.
    """
    fd = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    try:
        await parser.identify(fd, ImageKey.of_fd(fd), sys.executable)
    finally:
        os.close(fd)
    if parser.left_out:
        _log.warning("files are read with less confinement than there could be", left_out="; ".join(parser.left_out))


async def _end_when_blind(parser: Parser, collectors: Collectors, stop: asyncio.Event) -> None:
    """Ends the agent when it can read no program any more, once nothing is probed; whoever started it starts it again."""
    while not parser.lost or collectors.running or collectors.starting:  # noqa: ASYNC110  (a rare state, and no hurry)
        await asyncio.sleep(_LOOK_S)
    _log.error("programs cannot be read any more; the agent ends, to be started again", reason=parser.lost)
    stop.set()


async def _until(stop: asyncio.Event, *work: Coroutine[Any, Any, None]) -> None:
    """Runs ``work`` until ``stop`` is set; an error in any of it ends the rest, and is raised."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(part) for part in work]
        await stop.wait()
        for task in tasks:
            task.cancel()


def agent_id_of(settings: AgentSettings) -> str:
    """The name of this agent: as configured, else as kept in the state directory, at first the name of the host."""
    if settings.agent_id:
        return check_name(settings.agent_id, "agent_id")
    kept = Path(settings.state_dir) / "agent_id"
    try:
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not kept.exists():
            kept.write_text(socket.gethostname() + "\n")
        return check_name(kept.read_text().strip(), f"the agent id in {kept}")
    except OSError as error:
        raise FailedPrecondition(
            f"The state directory {kept.parent} cannot be used: {error.strerror}.", hint="Choose another with --state-dir."
        ) from None
