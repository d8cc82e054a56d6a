"""Users' rights by Cedar policies: the authoriser behind the colony's guard, and who may see captured values."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from coral.colony.access.actions import ACTIONS, Action, Reach, Resource
from coral.colony.access.approvals import Approvals
from coral.colony.access.authorise import Decision
from coral.colony.access.in_force import PoliciesInForce
from coral.colony.access.labels import Labels
from coral.colony.values import Item
from coral.model.errors import CoralError
from coral.model.principal import Kind, Principal, Role
from coral.model.resolved import ResolvedFunction
from coral.model.session import Session
from coral.trust.policy.names import decide_names
from coral.trust.policy.policies import Policies
from coral.trust.policy.question import Circumstances, Question
from coral.trust.policy.words import refusal, refusal_of_name

READ_VALUES = Action(name="ReadValues", reach=Reach.SESSION, role=Role.INVESTIGATOR)
APPROVE_ATTACH = Action(name="ApproveAttach", reach=Reach.SERVICE, role=Role.ADMIN)
_LOOKING = {action.name: action for action in ACTIONS.values() if action.role is Role.VIEWER}
_S = 1_000_000_000


class CedarAuthoriser:
    """Decides by the policies in force.

    Args:
        in_force: Those policies.
        labels: What they know of services.
        approvals: Where an approval is looked for, and asked for, that a policy demands.
        clock_ns: The wall clock.
    """

    def __init__(
        self,
        *,
        in_force: PoliciesInForce,
        labels: Labels,
        approvals: Approvals,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._in_force = in_force
        self._labels = labels
        self._approvals = approvals
        self._clock_ns = clock_ns

    @property
    def policies(self) -> Policies:
        """Those in force now."""
        return self._in_force.policies

    @property
    def speaks_of_functions(self) -> bool:
        """Whether any of them can decide by the name of a function."""
        return self._in_force.policies.speaks_of_functions

    async def decide(self, principal: Principal, action: Action, resource: Resource) -> Decision:
        """Whether a user may; uses an approval up where a policy asks for one, or asks for it."""
        policies = self._in_force.policies
        question = self.question(principal, action, resource)
        answer = policies.decide(question)
        decided = tuple(policy.policy_id for policy in answer.policies)
        if not answer.allowed:
            return Decision(policies=decided, refusal=refusal(policies, question, answer))
        if answer.approval is not None:
            try:
                await self._approvals.claim(principal, action, resource, answer.approval)
            except CoralError as error:
                return Decision(policies=decided, refusal=error)
        return Decision(policies=decided)

    def held(self) -> AbstractAsyncContextManager[None]:
        """Around the serving of one call: the approvals that it used are given back if it fails."""
        return self._approvals.held()

    async def decide_names(
        self, principal: Principal, action: Action, resource: Resource, functions: Sequence[ResolvedFunction]
    ) -> Decision:
        """Whether a user may, by all that the function of ``resource`` is called; uses approvals as ``decide`` does."""
        policies = self._in_force.policies
        found = await asyncio.to_thread(decide_names, policies, self.question(principal, action, resource), functions)
        decided = tuple(policy.policy_id for policy in found.decision.policies)
        if not found.decision.allowed:
            return Decision(
                policies=decided, refusal=refusal_of_name(policies, found.question, found.decision, resource.function_name)
            )
        try:
            for policy in found.approvals:
                await self._approvals.claim(principal, action, resource, policy)
        except CoralError as error:
            return Decision(policies=decided, refusal=error)
        return Decision(policies=decided)

    async def forbidden(self, principal: Principal, action: Action, resource: Resource, function: ResolvedFunction) -> str:
        """Why a user may not, as a sentence without its subject, the function; empty if it may. Uses no approval."""
        question = self.question(principal, action, resource)
        decision = (await asyncio.to_thread(decide_names, self._in_force.policies, question, [function])).decision
        if decision.allowed:
            return ""
        by = ", ".join(str(policy) for policy in decision.policies)
        return f"is not for {principal.name}: {by} forbids it" if by else f"is not for {principal.name}: no policy permits it"

    async def sees_values(self, principal: Principal, session: Session) -> bool:
        """Whether somebody may see the values that a session captured. Where nobody is authenticated, everybody may."""
        if principal.kind is not Kind.USER:
            return principal.kind is Kind.LOCAL
        resource = Resource(session_id=session.session_id).of(session)
        return self.policies.decide(self.question(principal, READ_VALUES, resource)).allowed

    async def sees_items(self, principal: Principal, action: str, items: Sequence[Item]) -> list[bool]:
        """Those that the credential is good for, and that policies let the caller have."""
        if principal.kind is not Kind.USER:
            return [principal.kind is Kind.LOCAL] * len(items)
        in_scope = [principal.in_scope(item.service_name) for item in items]
        policies = self.policies
        if policies.only_default:  # they let users look at everything, or at nothing
            return in_scope
        looking = _LOOKING[action]
        asked = {item for item, scoped in zip(items, in_scope, strict=True) if scoped}

        def allowed() -> set[Item]:
            return {item for item in asked if policies.decide(self.question(principal, looking, _resource_of(item))).allowed}

        shown = await asyncio.to_thread(allowed)
        return [item in shown for item in items]

    def question(self, principal: Principal, action: Action, resource: Resource) -> Question:
        """What the policies are asked."""
        about_service = action.reach in (Reach.SERVICE, Reach.SESSION) or (
            action.reach is Reach.LISTING and bool(resource.service_name)
        )
        return Question(
            principal=principal,
            action=action.name,
            at_ns=self._clock_ns(),
            target=self._labels.target(resource.service_name) if about_service else None,
            circumstances=Circumstances(
                function=resource.function_name,
                duration_s=-(-(resource.duration_ns or 0) // _S),
                capture_values=resource.captures_values,
                mode=resource.mode,
                agent=resource.agent_id,
                owner=resource.owner,
                reason=resource.reason,
            ),
        )


def _resource_of(item: Item) -> Resource:
    return Resource(service_name=item.service_name, function_name=item.function_name, owner=item.owner)
