"""``coral.colony.v1.RegistryService``: agents make themselves known."""

# ruff: noqa: N802  (the methods are named as the wire names them)

from __future__ import annotations

import hashlib
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, TypeVar

from coral.colony.audit import Audit
from coral.colony.collectors import Collectors
from coral.colony.registry import Registry
from coral.colony.slots import Slots
from coral.colony.tasks import Tasks
from coral.colony.values import Item, Sight
from coral.colony.watch import Watch
from coral.model.errors import InvalidArgument, error_for
from coral.model.principal import current_principal
from coral.model.probe import check_sdk_addr
from coral.model.service import Agent, Service
from coral.model.text import check_name
from coral.wire._generated.colony.v1 import registry_pb2, registry_pb2_grpc
from coral.wire.address import split_address
from coral.wire.convert import service_from, service_to, timestamp
from coral.wire.paging import make_token, page_size, read_token

T = TypeVar("T")
_MAX_ITEMS = 10_000
_MAX_REFUSALS = 100


class RegistryServicer(registry_pb2_grpc.RegistryServiceServicer):
    """Answers agents, and those who ask about them."""

    def __init__(
        self,
        *,
        registry: Registry,
        watch: Watch,
        collectors: Collectors,
        slots: Slots,
        audit: Audit,
        tasks: Tasks,
        sight: Sight,
    ) -> None:
        self._registry = registry
        self._watch = watch
        self._collectors = collectors
        self._slots = slots
        self._audit = audit
        self._tasks = tasks
        self._sight = sight

    async def RegisterAgent(
        self, request: registry_pb2.RegisterAgentRequest, context: Any
    ) -> registry_pb2.RegisterAgentResponse:
        """Takes an agent in; one that was restarted gets its sessions anew."""
        who = current_principal()
        entry = self._audit.entry(who, "RegisterAgent", agent_id=request.agent_id, reason=request.address)
        async with self._audit.noting(entry):
            agent = _agent(request)
            services = _services(request.services, agent.agent_id)
            epoch, before = await self._registry.register(agent, services, digest=_digest(request.services))
        self._watch.agent_came(agent.agent_id, reborn=before != agent.boot_id)
        return registry_pb2.RegisterAgentResponse(epoch=epoch, heartbeat_ms=self._registry.heartbeat_ms())

    async def Heartbeat(self, request: registry_pb2.HeartbeatRequest, context: Any) -> registry_pb2.HeartbeatResponse:
        """Notes that an agent lives; what it runs without anybody's wish is stopped."""
        digest = _digest(request.services)
        unchanged = self._registry.is_unchanged(request.agent_id, digest)
        known = self._registry.heartbeat(
            request.agent_id,
            request.epoch,
            None if unchanged else _services(request.services, request.agent_id),
            digest=digest,
            lockdown=check_name(request.lockdown, "lockdown", required=False),
        )
        if known and (request.collectors or self._slots.doubts(request.agent_id)):
            agent = self._registry.agent(request.agent_id)
            reported, starting = list(request.collectors[:_MAX_ITEMS]), frozenset(request.starting[:_MAX_ITEMS])
            self._tasks.spawn(self._collectors.reconcile(agent, reported, starting=starting))
        for refusal in request.refusals[:_MAX_REFUSALS]:
            await self._note_refusal(request.agent_id, refusal)
        return registry_pb2.HeartbeatResponse(register_again=not known, heartbeat_ms=self._registry.heartbeat_ms())

    async def _note_refusal(self, agent_id: str, refusal: registry_pb2.AgentRefusal) -> None:
        """Records what an agent refused to do. That it was so is the agent's word, which is why the record is the agent's."""
        method = refusal.method.rpartition("/")[2]
        times = f" ({refusal.count:,} times)" if refusal.count > 1 else ""
        reason = f"{method} of {refusal.principal} from {refusal.address}{times}: {refusal.message}"
        entry = self._audit.entry(current_principal(), "AgentRefused", agent_id=agent_id, reason=reason)
        await self._audit.denied(entry, error_for(refusal.code)(reason))

    async def ListAgents(self, request: registry_pb2.ListAgentsRequest, context: Any) -> registry_pb2.ListAgentsResponse:
        """All agents, online or not."""
        who = current_principal()
        async with self._audit.noting(self._audit.entry(who, "ListAgents")):
            query: dict[str, object] = {"method": "ListAgents"}
            after = _after(request, query)
            known = self._registry.agents()
            found = known[bisect_right(known, after[0], key=lambda agent: agent.agent_id) :] if after else known
            agents, token = _page(request, query, found, key=lambda agent: [agent.agent_id])
            return registry_pb2.ListAgentsResponse(agents=map(_message, agents), next_page_token=token)

    async def ListServices(
        self, request: registry_pb2.ListServicesRequest, context: Any
    ) -> registry_pb2.ListServicesResponse:
        """What the online agents see: an item per service and agent."""
        who = current_principal()
        async with self._audit.noting(self._audit.entry(who, "ListServices", service_name=request.name)):
            check_name(request.name, "name", required=False)
            query: dict[str, object] = {"method": "ListServices", "name": request.name}
            after = _after(request, query)
            services = self._registry.services_after(request.name, (after[0], after[1]) if after else ("", ""))
            found, token = _page(request, query, services, key=lambda service: [service.name, service.agent_id])
            seen = await self._sight.sees_items(who, "ListServices", [Item(service_name=service.name) for service in found])
            shown = [service_to(service) for service, sees in zip(found, seen, strict=True) if sees]
            return registry_pb2.ListServicesResponse(services=shown, next_page_token=token)


def _after(request: Any, query: dict[str, object]) -> list[str]:
    """Behind what a page begins; empty for the first.

    Raises:
        InvalidArgument: The token is none of this query.
    """
    return list(read_token(request.page_token, query)["after"]) if request.page_token else []


def _page(
    request: Any, query: dict[str, object], found: Iterable[T], *, key: Callable[[T], list[str]]
) -> tuple[list[T], str]:
    """What a page has of what is found, and the token of the next; empty for the last. Without a size it is all: that is what
    who knows no pages expects.

    Raises:
        InvalidArgument: The size is none.
    """
    if not request.page_size and not request.page_token:
        return list(found), ""
    size = page_size(request.page_size, field="page_size")
    page = list(islice(found, size + 1))
    return page[:size], make_token(query, {"after": key(page[size - 1])}) if len(page) > size else ""


def _digest(services: Iterable[registry_pb2.ServiceInfo]) -> bytes:
    """Tells whether an agent says the same as before: what a host runs changes less often than its heart beats."""
    said = registry_pb2.HeartbeatRequest(services=services).SerializeToString(deterministic=True)
    return hashlib.blake2b(said, digest_size=16).digest()


def _agent(request: registry_pb2.RegisterAgentRequest) -> Agent:
    check_name(request.agent_id, "agent_id")
    check_name(request.boot_id, "boot_id")
    for field in ("version", "hostname", "kernel"):
        check_name(getattr(request, field), field, required=False)
    split_address(check_name(request.address, "address"))
    return Agent(
        agent_id=request.agent_id,
        address=request.address,
        version=request.version,
        hostname=request.hostname,
        boot_id=request.boot_id,
        kernel=request.kernel,
        methods=tuple(check_name(method, "methods") for method in request.methods[:100]),
        last_seen_at_ns=time.time_ns(),
        online=True,
        lockdown=check_name(request.lockdown, "lockdown", required=False),
    )


def _services(messages: Any, agent_id: str) -> tuple[Service, ...]:
    if len(messages) > _MAX_ITEMS:
        raise InvalidArgument(f"An agent reports {len(messages):,} services.", hint=f"At most {_MAX_ITEMS:,} are taken.")
    for message in messages:
        check_name(message.name, "services.name")
        for field in ("rule", "sdk_version"):
            check_name(getattr(message, field), f"services.{field}", required=False)
        check_sdk_addr(message.sdk_addr)
    return tuple(service_from(message, agent_id=agent_id) for message in messages)


def _message(agent: Agent) -> registry_pb2.Agent:
    return registry_pb2.Agent(
        agent_id=agent.agent_id,
        address=agent.address,
        status="online" if agent.online else "offline",
        version=agent.version,
        last_seen_at=timestamp(agent.last_seen_at_ns),
        kernel=agent.kernel,
        methods=agent.methods,
        hostname=agent.hostname,
        boot_id=agent.boot_id,
        lockdown=agent.lockdown,
    )
