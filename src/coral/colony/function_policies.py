"""Policies about functions, asked about what a name really stands for on the hosts, before anything is attached there.

The guard asks about the name as it was typed. Where a policy speaks of functions at all, the agents are asked what the name
stands for, and the policies about all that this is called; the agents then attach that and nothing else (``agent.naming``).
Where none does, nobody is asked, and an attach costs what it did.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Protocol

from coral.colony.access.actions import ACTIONS, Action, Resource, resource_of
from coral.colony.access.authorise import Decision
from coral.colony.audit import Audit
from coral.colony.book import LiveSession
from coral.colony.pool import AgentPool
from coral.colony.registry import Registry
from coral.model.errors import CoralError, FailedPrecondition, PermissionDenied, Unimplemented
from coral.model.principal import Kind, Principal
from coral.model.probe import DEFAULT_DURATION_NS, Mode
from coral.model.resolved import ResolvedFunction
from coral.model.service import Agent
from coral.wire._generated.colony.v1 import debug_pb2, inspect_pb2
from coral.wire._generated.mesh.v1 import ebpf_pb2
from coral.wire._generated.mesh.v1 import inspect_pb2 as mesh
from coral.wire.inspect_convert import resolved_from

_ATTACH = ACTIONS["/coral.colony.v1.DebugService/AttachUprobe"]
_TIMEOUT_S = 10.0
_MOST_FUNCTIONS = 1_000
_MARKING_S = 1.0


class NamePolicies(Protocol):
    """Decides by names of functions."""

    @property
    def speaks_of_functions(self) -> bool:
        """Whether any policy in force does."""
        ...

    async def decide_names(
        self, principal: Principal, action: Action, resource: Resource, functions: Sequence[ResolvedFunction]
    ) -> Decision:
        """Whether a user may, by all that the function of ``resource`` is called."""
        ...

    async def forbidden(self, principal: Principal, action: Action, resource: Resource, function: ResolvedFunction) -> str:
        """Why a user may not, as a sentence without its subject, the function; empty if it may. Uses no approval."""
        ...


class FunctionPolicies:
    """Asks them.

    Args:
        registry: Which agents there are.
        pool: How they are reached.
        policies: Those in force.
        audit: Where it is written down what was decided later than the attach.
    """

    def __init__(self, registry: Registry, pool: AgentPool, policies: NamePolicies, audit: Audit) -> None:
        self._registry = registry
        self._pool = pool
        self._policies = policies
        self._audit = audit

    def apply_to(self, who: Principal) -> bool:
        """Whether it matters to somebody's attach what functions are called."""
        return who.kind is Kind.USER and self._policies.speaks_of_functions

    async def resolve(self, service: str, function: str, agents: Iterable[Agent]) -> list[ResolvedFunction]:
        """What a name stands for, each once. Agents that cannot be asked have nothing authorised, and attach nothing.

        Raises:
            FailedPrecondition: An agent is too old to tell; or there are absurdly many.
        """
        question = mesh.ResolveFunctionRequest(service_name=service, function_name=function)

        async def ask(agent: Agent) -> Sequence[mesh.ResolvedFunction]:
            try:
                answer = await self._pool.call(
                    agent, lambda client, left_s: client.resolve_function(question, timeout_s=left_s), timeout_s=_TIMEOUT_S
                )
            except Unimplemented:
                raise FailedPrecondition(
                    f"Agent {agent.agent_id!r} cannot tell what functions are called, which this colony's policies go by.",
                    hint="Run the colony's version of Coral on it, or narrow the attach to other agents with --agent.",
                ) from None
            except CoralError:
                return ()  # starting it there says why
            return answer.functions

        answers = await asyncio.gather(*map(ask, agents))
        found = {one.mark: one for answer in answers for one in map(resolved_from, answer)}
        if len(found) > _MOST_FUNCTIONS:
            raise FailedPrecondition(
                f"{function!r} stands for {len(found):,} functions.", hint="Narrow the attach to one agent with --agent."
            )
        return list(found.values())

    async def names_of(self, resource: Resource) -> list[ResolvedFunction]:
        """What the function of an attach is called on the hosts where it would be attached; empty where none can say."""
        try:
            agents = (
                [self._registry.online(resource.agent_id)]
                if resource.agent_id
                else self._registry.hosts_of(resource.service_name)
            )
            return await self.resolve(resource.service_name, resource.function_name, agents)
        except CoralError:
            return []  # the attach itself says what is in its way

    async def mark(self, who: Principal, service: str, listed: inspect_pb2.ListFunctionsResponse) -> None:
        """Has a list say of functions that ``who`` may not attach to them, as far as a second goes.

        By their own names alone: what else their code is called, an attach finds out.
        """
        if not self.apply_to(who):
            return
        until_s = time.monotonic() + _MARKING_S
        for part in listed.images:
            for at, (name, demangled) in enumerate(zip(part.functions.name, part.functions.demangled, strict=True)):
                if time.monotonic() > until_s:
                    listed.warnings.append("Not every function was held to the policies: narrow the list down.")
                    return
                ways = tuple({way for way in (name, demangled, demangled.partition("(")[0]) if way})
                function = ResolvedFunction(name=name, file=PurePath(part.image.path).name, called=(ways,))
                resource = Resource(
                    service_name=service, function_name=name, duration_ns=DEFAULT_DURATION_NS, mode=Mode.EVENTS
                )
                refused = await self._policies.forbidden(who, _ATTACH, resource, function)
                if refused:
                    part.functions.verdict[at] = len(part.functions.verdicts)
                    part.functions.verdicts.add(probeable="no", reason=refused, exact=True)

    async def authorise(
        self, who: Principal, request: debug_pb2.AttachUprobeRequest, agents: Sequence[Agent]
    ) -> ebpf_pb2.AuthorisedFunctions:
        """The functions that a request means and that the policies let ``who`` probe.

        Raises:
            PermissionDenied: They forbid one of them, or an approval is needed.
            CoralError: It cannot be found out.
        """
        found = await self.resolve(request.service_name, request.function_name, agents)
        await self._check(who, resource_of(request), found)
        return ebpf_pb2.AuthorisedFunctions(marks=sorted(one.mark for one in found))

    async def authorise_more(self, live: LiveSession, agents: Sequence[Agent]) -> bool:
        """Has the policies asked about what a session's name stands for in processes that came later.

        Returns:
            Whether there is more now that may be probed; it is in the session's request then.

        Raises:
            PermissionDenied: The policies forbid it; that is in the audit log.
            CoralError: It cannot be found out, or not be written down.
        """
        request, who = debug_pb2.AttachUprobeRequest.FromString(live.request), live.who
        if who is None or not request.HasField("authorised"):
            return False
        found = await self.resolve(request.service_name, request.function_name, agents)
        new = [one for one in found if one.mark not in {*request.authorised.marks, *live.refused}]
        if not new:
            return False
        entry = self._audit.entry(
            who,
            "AttachUprobe",
            service_name=request.service_name,
            function_name=", ".join(sorted({f"{one.file}!{one.name}" for one in new})),
            session_id=live.session_id,
            reason=f"processes that came later have another function for {request.function_name}",
        )
        asked = debug_pb2.AttachUprobeRequest()
        asked.CopyFrom(request)
        asked.ClearField("authorised")
        try:
            await self._check(who, replace(resource_of(asked), session_id=""), new)
        except PermissionDenied as error:
            live.refused |= {one.mark for one in new}
            await self._audit.denied(entry, error)
            raise
        async with self._audit.noting(entry):
            request.authorised.marks.extend(one.mark for one in new)
            live.request = request.SerializeToString()
        return True

    async def _check(self, who: Principal, resource: Resource, functions: Collection[ResolvedFunction]) -> None:
        if not functions:
            return
        decision = await self._policies.decide_names(who, _ATTACH, resource, list(functions))
        if decision.refusal is not None:
            raise decision.refusal
