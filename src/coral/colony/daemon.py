"""The colony: its parts put together, started and stopped in order."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from coral.colony.access.rights import Rights
from coral.colony.audit import Audit
from coral.colony.audit.retention import prune_forever
from coral.colony.book import SessionBook
from coral.colony.collectors import Collectors
from coral.colony.damage import Damage
from coral.colony.expulsion import Expulsion
from coral.colony.followers import Followers
from coral.colony.function_policies import FunctionPolicies
from coral.colony.functions import Functions
from coral.colony.housekeeping import flush_registry
from coral.colony.ingest import Ingest
from coral.colony.inspect import Inspector
from coral.colony.orchestrator import Orchestrator
from coral.colony.pool import AgentPool
from coral.colony.purge import Purger
from coral.colony.queries import Queries
from coral.colony.recovery import recover
from coral.colony.registry import Registry
from coral.colony.retention import Limits, Retention
from coral.colony.secured import Secured
from coral.colony.servicers.access import AccessServicer
from coral.colony.servicers.audit import AuditServicer
from coral.colony.servicers.debug import DebugServicer
from coral.colony.servicers.enrolment import EnrolmentServicer
from coral.colony.servicers.inspect import InspectServicer
from coral.colony.servicers.policy import PolicyServicer
from coral.colony.servicers.registry import RegistryServicer
from coral.colony.slots import SlotLimits, Slots
from coral.colony.store.database import Database
from coral.colony.store.schema import CONTROL, EVENTS
from coral.colony.tally import Tally
from coral.colony.tasks import Tasks
from coral.colony.watch import GRACE_S, Watch
from coral.config.settings import ColonySettings
from coral.model.errors import FailedPrecondition
from coral.telemetry.exposed import metrics_served
from coral.telemetry.lifecycle import room_for
from coral.telemetry.service_manager import ServiceManager
from coral.telemetry.vitals import Vitals
from coral.trust.colony_keys import ColonyKeys
from coral.wire._generated.colony.v1 import (
    access_pb2,
    access_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    debug_pb2,
    debug_pb2_grpc,
    enrolment_pb2,
    enrolment_pb2_grpc,
    inspect_pb2,
    inspect_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)
from coral.wire.address import split_address
from coral.wire.server import Server

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_log = structlog.get_logger(__name__)
_PORTS = 2
_STOP_GRACE_S = 0.5
STORAGE_HEALTH = "coral.storage"
"""The name under which it says whether no database file had to be set aside since the colony started."""
POLICY_HEALTH = "coral.policies"
"""The name under which the health service says whether the policies in the folder are those in force."""
_SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (debug_pb2, "DebugService"),
        (registry_pb2, "RegistryService"),
        (inspect_pb2, "InspectService"),
        (policy_pb2, "PolicyService"),
        (access_pb2, "AccessService"),
        (audit_pb2, "AuditService"),
    )
)


class Colony:
    """One control plane over one state directory, or over tables in memory."""

    def __init__(
        self,
        settings: ColonySettings,
        *,
        keys: ColonyKeys | None = None,
        in_memory: bool = False,
        grace_s: float = GRACE_S,
        manager: ServiceManager | None = None,
    ) -> None:
        """Builds it; nothing is opened yet.

        Args:
            settings: Where to listen, where the state is, and the limits.
            keys: Its keys; None for a colony that asks for no credentials, in plain text, and on loopback only.
            in_memory: Whether it leaves the state directory alone and forgets everything at its end.
            grace_s: How long after a deadline an agent may stay silent before its session is lost.
            manager: Who started this process, and ends it when it is not told that it lives; None for nobody.
        """
        state_dir = None if in_memory else settings.state_dir
        offline_after_s = settings.offline_after_ms / 1000
        self._settings = settings
        self._state_dir = state_dir
        self._control = Database(state_dir and state_dir / "control.duckdb", CONTROL)
        self._events = Database(state_dir and state_dir / "events.duckdb", EVENTS, replaceable=True)
        self._tasks = Tasks()
        self._audit = Audit(self._control, folder=state_dir, copy_bytes=settings.audit_copy_bytes)
        self._registry = Registry(
            self._control,
            offline_after_s=offline_after_s,
            heartbeat_ms=settings.heartbeat_ms,
            heartbeats_per_s=settings.heartbeats_per_s,
        )
        self._book = SessionBook(self._control)
        self._rights = Rights(settings, control=self._control, audit=self._audit)
        self._secured = None if keys is None else self._secured_by(keys)
        self._pool = AgentPool(self._secured.dialling if self._secured else None)
        self._slots = Slots(self._book, slot_limits(settings))
        self._ingest = Ingest(self._events, self._book, min_free_bytes=settings.min_free_bytes)
        self._damage = Damage(control_db=self._control, events_db=self._events, audit=self._audit)
        self._retention = Retention(
            control_db=self._control,
            events_db=self._events,
            book=self._book,
            limits=Limits(
                sessions_s=settings.session_retention_s,
                events_bytes=settings.max_events_bytes,
                free_bytes=settings.keep_free_bytes,
            ),
        )
        self._function_policies = FunctionPolicies(self._registry, self._pool, self._rights.authoriser, self._audit)
        self._collectors = Collectors(self._pool, self._book, self._slots, self._function_policies)
        self._watch = Watch(
            registry=self._registry,
            pool=self._pool,
            book=self._book,
            ingest=self._ingest,
            collectors=self._collectors,
            slots=self._slots,
            silent_s=offline_after_s,
            grace_s=grace_s,
        )
        self._server = Server(
            self._secured.door.guard if self._secured else None,
            max_connections=room_for(_PORTS * settings.max_connections) // _PORTS,
        )
        self._tally = Tally(self._book)
        self._vitals = Vitals(
            {"control": self._control.trouble, "events": self._events.trouble, "audit": self._audit.trouble},
            report=self._server.serve,
            manager=manager,
        )
        self._exposed = AsyncExitStack()
        self.address = ""
        self.metrics_address = ""

    def _secured_by(self, keys: ColonyKeys) -> Secured:
        return Secured(
            self._settings,
            keys,
            control=self._control,
            audit=self._audit,
            authoriser=self._rights.authoriser,
            sessions=self._book,
        )

    async def start(self) -> str:
        """Opens the databases, follows what ran, and serves.

        Returns:
            HOST:PORT that it serves on.

        Raises:
            FailedPrecondition: The address is taken, or not loopback without keys; the state directory is in use, or its
                policies are broken.
        """
        check_listen(self._settings.listen, secured=self._secured is not None)
        if self._settings.metrics_listen:
            split_address(self._settings.metrics_listen)
        if self._state_dir is not None:
            make_private(self._state_dir)
        try:
            await self._control.open()
            await self._events.open()
            await self._audit.open()
            await self._registry.load()
            await self._rights.open()
            if self._secured is not None:
                await self._secured.open()
            recovered = await recover(
                control_db=self._control,
                events_db=self._events,
                book=self._book,
                ingest=self._ingest,
                slots=self._slots,
                registry=self._registry,
            )
            self._serve()
            self.metrics_address = await self._exposed.enter_async_context(
                metrics_served(self._settings.metrics_listen, self._metrics)
            )
            self.address = await self._listen()
        except BaseException:
            await self._close()
            raise
        for live in recovered:
            self._tasks.spawn(self._watch.session(live))
        if recovered:
            _log.info("sessions resumed", sessions=len(recovered))
        return self.address

    @property
    def agent_address(self) -> str:
        """HOST:PORT where it serves agents by mutual TLS; empty for a colony without keys, whose agents use ``address``."""
        return self._secured.agent_address if self._secured else ""

    async def run(self, stop: asyncio.Event) -> None:
        """Works until ``stop`` is set, then ends in order. Running sessions stay with their agents."""
        try:
            async with asyncio.TaskGroup() as group:
                working = [
                    group.create_task(self._ingest.run()),
                    group.create_task(self._audit.run()),
                    group.create_task(prune_forever(self._audit, retention_s=self._settings.audit_retention_s)),
                    group.create_task(flush_registry(self._registry)),
                    group.create_task(self._rights.run(self._report_policies)),
                    group.create_task(self._retention.run()),
                    group.create_task(self._damage.run(self._report_storage)),
                    group.create_task(self._vitals.run()),
                ]
                if self._secured is not None:
                    working.append(group.create_task(self._secured.keys.run()))
                await stop.wait()
                await self._server.stop(_STOP_GRACE_S)
                await self._tasks.stop()
                for task in working:
                    task.cancel()
        finally:
            await self._server.stop(0)
            await self._tasks.stop()
            await self._close()

    async def _report_storage(self, healthy: bool) -> None:
        await self._server.report(STORAGE_HEALTH, healthy=healthy)

    async def _report_policies(self, healthy: bool) -> None:
        await self._server.report(POLICY_HEALTH, healthy=healthy)

    def _metrics(self) -> Iterable[Metric]:
        from coral.colony.metrics import of_colony

        return of_colony(
            book=self._book,
            tally=self._tally,
            registry=self._registry,
            ingest=self._ingest,
            slots=self._slots,
            audit=self._audit,
            databases=(self._control, self._events),
            retention=self._retention,
            calls=self._server.calls,
            vitals=self._vitals,
        )

    async def _close(self) -> None:
        await self._exposed.aclose()
        self._registry.flush()
        await self._pool.close()
        await self._audit.close()
        await self._control.close()
        await self._events.close()

    async def _listen(self) -> str:
        secured = self._secured
        if secured is not None:
            secured.agent_address = self._server.bind(
                secured.agent_listen(), flag="--agent-listen", credentials=secured.of_agents()
            )
        return await self._server.start(
            self._settings.listen,
            services=self._services,
            flag="--listen",
            credentials=secured.of_users() if secured is not None else None,
        )

    def _serve(self) -> None:
        orchestrator = Orchestrator(
            control_db=self._control,
            registry=self._registry,
            collectors=self._collectors,
            book=self._book,
            watch=self._watch,
            audit=self._audit,
            slots=self._slots,
            tasks=self._tasks,
            functions=self._function_policies,
        )
        if self._settings.audit_failure == "detach":
            self._audit.on_failure = lambda why: self._end_unaudited(orchestrator, why)
        debug = DebugServicer(
            orchestrator=orchestrator,
            queries=Queries(self._book, self._events),
            followers=Followers(self._book, self._events),
            book=self._book,
            audit=self._audit,
            sight=self._rights.authoriser,
        )
        registry = RegistryServicer(
            registry=self._registry,
            watch=self._watch,
            collectors=self._collectors,
            slots=self._slots,
            audit=self._audit,
            tasks=self._tasks,
            sight=self._rights.authoriser,
        )
        inspector = InspectServicer(
            inspector=Inspector(self._control, self._events),
            functions=Functions(self._registry, self._pool),
            policies=self._function_policies,
            audit=self._audit,
        )
        door = self._secured.door if self._secured else None
        tokens, put_out = (door.tokens, door.put_out) if door else (None, None)
        policy = PolicyServicer(
            in_force=self._rights.in_force,
            authoriser=self._rights.authoriser,
            approvals=self._rights.approvals,
            roles_of=tokens.roles_of if tokens else lambda _: (),
            audit=self._audit,
            enforced=self._secured is not None,
            resolve=self._function_policies.names_of,
        )
        server = self._server.grpc
        debug_pb2_grpc.add_DebugServiceServicer_to_server(debug, server)
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(registry, server)
        inspect_pb2_grpc.add_InspectServiceServicer_to_server(inspector, server)
        policy_pb2_grpc.add_PolicyServiceServicer_to_server(policy, server)
        access_pb2_grpc.add_AccessServiceServicer_to_server(
            AccessServicer(tokens=tokens, put_out=put_out, audit=self._audit), server
        )
        purger = Purger(control_db=self._control, events_db=self._events, book=self._book)
        audit_pb2_grpc.add_AuditServiceServicer_to_server(AuditServicer(audit=self._audit, purger=purger), server)
        self._services = [*_SERVICES]
        if self._secured is not None:
            self._serve_enrolment(self._secured)

    def _end_unaudited(self, orchestrator: Orchestrator, why: str) -> None:
        """Ends what runs while the audit log cannot be written."""
        _log.error(
            "sessions are ended: the audit log cannot be written, and audit_failure is detach", sessions=len(self._book)
        )
        self._tasks.spawn(orchestrator.end_all(f"The audit log cannot be written ({why}), and audit_failure is detach."))

    def _serve_enrolment(self, secured: Secured) -> None:
        expulsion = Expulsion(
            enrolment=secured.enrolment,
            registry=self._registry,
            book=self._book,
            collectors=self._collectors,
            pool=self._pool,
        )
        expulsion.forget_strangers()
        enrolment = EnrolmentServicer(
            enrolment=secured.enrolment,
            expulsion=expulsion,
            keys=lambda: secured.keys.keys,
            agent_port=secured.agent_port,
            audit=self._audit,
        )
        enrolment_pb2_grpc.add_EnrolmentServiceServicer_to_server(enrolment, self._server.grpc)
        self._services.append(enrolment_pb2.DESCRIPTOR.services_by_name["EnrolmentService"].full_name)


def slot_limits(settings: ColonySettings) -> SlotLimits:
    """The limits of concurrent sessions, as they are set."""
    return SlotLimits(
        user=settings.max_sessions_per_user,
        service=settings.max_sessions_per_service,
        agent=settings.max_sessions_per_agent,
        colony=settings.max_sessions,
        wait_s=settings.slot_wait_s,
    )


def check_listen(listen: str, *, secured: bool) -> None:
    """Checks an address before anything else is touched.

    Args:
        listen: HOST:PORT.
        secured: Whether it is served with TLS and credentials.

    Raises:
        InvalidArgument: It is not HOST:PORT.
        FailedPrecondition: It is neither secured nor loopback, or its port is taken.
    """
    host, port = split_address(listen)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise FailedPrecondition(f"Cannot listen on {listen}: {error}.", hint="Choose another with --listen.") from None
    for family, _, _, _, address in found:
        if not secured and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
            raise FailedPrecondition(
                f"The colony does not listen on {listen}: it has no TLS and no authentication, so anybody who reaches it "
                "could attach probes.",
                hint="Give it keys with `coral colony init` and leave --insecure out, or listen on 127.0.0.1 with --listen.",
            )
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                raise FailedPrecondition(
                    f"Cannot listen on {listen}: {error.strerror or error}.", hint="Choose another port with --listen."
                ) from None


def make_private(state_dir: Path) -> None:
    """Creates the state directory, readable by its owner alone: events may hold what functions are called with.

    Raises:
        FailedPrecondition: It cannot be created or written.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise FailedPrecondition(
            f"The state directory {state_dir} cannot be created: {error.strerror}.", hint="Give another with --state-dir."
        ) from None
    if not os.access(state_dir, os.W_OK | os.X_OK):
        raise FailedPrecondition(
            f"The state directory {state_dir} cannot be written.", hint="Give another with --state-dir, or run as its owner."
        )
