"""``coral.colony.v1.PolicyService``: what the policies say, and approvals by a second person."""

# ruff: noqa: N802  (the methods are named as the wire names them)

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from rapidfuzz import process

from coral.colony.access.actions import ACTIONS, Action, Reach, Resource
from coral.colony.access.approvals import Approvals, check_other
from coral.colony.access.in_force import PoliciesInForce
from coral.colony.access.policies import APPROVE_ATTACH, READ_VALUES, CedarAuthoriser
from coral.colony.audit import Audit, Entry
from coral.colony.servicers.policy_messages import approval_message, approval_resource, policy_message
from coral.model.errors import CoralError, InvalidArgument, PermissionDenied
from coral.model.principal import Kind, Principal, Role, current_principal
from coral.model.probe import Mode
from coral.model.resolved import ResolvedFunction
from coral.model.text import check_name, printable
from coral.trust.policy.names import decide_names
from coral.trust.policy.policies import actions
from coral.trust.policy.words import explained
from coral.wire._generated.colony.v1 import policy_pb2, policy_pb2_grpc
from coral.wire.convert import duration_ns, timestamp

_MAX_LISTED = 1_000
_MAX_GROUPS = 100
_MAX_NAMES = 1_000
_DEFAULT_NS = 60_000_000_000
_MAX_DURATION_NS = 1 << 62
_BY_NAME = {action.name: action for action in (*ACTIONS.values(), READ_VALUES, APPROVE_ATTACH)}


class PolicyServicer(policy_pb2_grpc.PolicyServiceServicer):
    """Answers ``coral policy`` and ``coral approval``.

    Args:
        in_force: The policies.
        authoriser: Who may, by them.
        approvals: Requests for approval.
        roles_of: The roles that a user has by a token of that name; none if there is no such token.
        audit: Where it is written down.
        enforced: Whether anybody is authenticated at all.
        resolve: Asks the hosts what the function of an attach is called there; empty where none can say.
    """

    def __init__(
        self,
        *,
        in_force: PoliciesInForce,
        authoriser: CedarAuthoriser,
        approvals: Approvals,
        roles_of: Callable[[str], tuple[Role, ...]],
        audit: Audit,
        enforced: bool,
        resolve: Callable[[Resource], Awaitable[list[ResolvedFunction]]],
    ) -> None:
        self._in_force = in_force
        self._authoriser = authoriser
        self._approvals = approvals
        self._roles_of = roles_of
        self._audit = audit
        self._enforced = enforced
        self._resolve = resolve

    async def CheckPolicies(self, request: policy_pb2.CheckPoliciesRequest, context: Any) -> policy_pb2.CheckPoliciesResponse:
        """What is in force, after a look at what is in the folder now."""
        async with self._audit.noting(self._audit.entry(current_principal(), "CheckPolicies")):
            await self._in_force.look()
            return policy_pb2.CheckPoliciesResponse(
                policies=[policy_message(policy) for policy in self._in_force.policies.all],
                in_force_since=timestamp(self._in_force.since_ns),
                faults=self._in_force.faults,
                folder=str(self._in_force.folder or ""),
                enforced=self._enforced,
            )

    async def ExplainPolicy(self, request: policy_pb2.ExplainPolicyRequest, context: Any) -> policy_pb2.ExplainPolicyResponse:
        """Decides without doing anything, and says why."""
        caller = current_principal()
        entry = self._audit.entry(
            caller,
            "ExplainPolicy",
            service_name=request.service_name,
            function_name=request.function_name,
            reason=f"{request.action} for {request.principal or caller.name}",
        )
        async with self._admitting(entry):
            principal = await self._asked_about(caller, request)
        async with self._audit.noting(entry):
            action = _action(request.action)
            resource = _resource(action, request)
            policies = self._authoriser.policies
            question = self._authoriser.question(principal, action, resource)
            decision, names = policies.decide(question), await self._names(caller, action, resource)
            if decision.allowed and names:
                found = await asyncio.to_thread(decide_names, policies, question, names)
                decision, question = found.decision, found.question
            word = "deny" if not decision.allowed else "allow" if decision.approval is None else "approval"
            return policy_pb2.ExplainPolicyResponse(
                decision=word,
                text=explained(policies, question, decision),
                policies=[policy_message(policy) for policy in decision.policies],
                roles=principal.roles,
                role=policies.role_for(question) or "",
                names=sorted({way for one in names for ways in one.called for way in ways})[:_MAX_NAMES],
            )

    async def _names(self, caller: Principal, action: Action, resource: Resource) -> list[ResolvedFunction]:
        """What the function of an attach is called on the hosts, if policies go by that and the caller may look there."""
        if action.name != "AttachUprobe" or not resource.function_name or not self._authoriser.speaks_of_functions:
            return []
        if caller.kind is Kind.USER:
            looks = self._authoriser.question(caller, _BY_NAME["ExplainFunction"], resource)
            if not caller.in_scope(resource.service_name) or not self._authoriser.policies.decide(looks).allowed:
                return []
        return await self._resolve(resource)

    async def ListApprovals(self, request: policy_pb2.ListApprovalsRequest, context: Any) -> policy_pb2.ListApprovalsResponse:
        """Requests about services that the caller's credential is good for."""
        caller = current_principal()
        async with self._audit.noting(self._audit.entry(caller, "ListApprovals")):
            found = [one for one in self._approvals.listed(everything=request.all) if caller.in_scope(one.service_name)]
            return policy_pb2.ListApprovalsResponse(
                approvals=[approval_message(one, self._approvals.state(one)) for one in found[:_MAX_LISTED]]
            )

    async def DecideApproval(
        self, request: policy_pb2.DecideApprovalRequest, context: Any
    ) -> policy_pb2.DecideApprovalResponse:
        """Approves or denies, if the policies let the caller approve what was asked for."""
        caller = current_principal()
        word = "approve" if request.approve else "deny"
        entry = self._audit.entry(caller, "DecideApproval", reason=f"{word} {request.approval_id} {request.reason}".rstrip())
        async with self._admitting(entry):
            found = self._approvals.get(request.approval_id)
        entry = self._audit.entry(
            caller,
            "DecideApproval",
            service_name=found.service_name,
            function_name=found.function_name,
            agent_id=found.agent_id,
            reason=f"{word} {found.approval_id} of {found.requested_by} {request.reason}".rstrip(),
        )
        async with self._admitting(entry):
            check_other(found, caller)
            await self._check_may_approve(caller, approval_resource(found))
        async with self._audit.noting(entry):
            decided = await self._approvals.decide(found.approval_id, caller, approve=request.approve, comment=request.reason)
            return policy_pb2.DecideApprovalResponse(approval=approval_message(decided, self._approvals.state(decided)))

    @asynccontextmanager
    async def _admitting(self, entry: Entry) -> AsyncIterator[None]:
        """Writes down what the block refuses; what it lets through is written down by who does it."""
        try:
            yield
        except PermissionDenied as error:
            await self._audit.denied(entry, error)
            raise
        except CoralError as error:
            await self._audit.refused(entry, error)
            raise

    async def _check_may_approve(self, caller: Principal, resource: Resource) -> None:
        if caller.kind is Kind.LOCAL:
            return
        if not caller.in_scope(resource.service_name):
            raise PermissionDenied(
                f"{caller.name} may not ApproveAttach on service {resource.service_name!r}: the token is not good for it.",
                hint="Ask an admin for a token that is.",
                details={"action": "ApproveAttach", "policy": "scope of the token"},
            )
        decision = await self._authoriser.decide(caller, APPROVE_ATTACH, resource)
        if decision.refusal is not None:
            raise decision.refusal

    async def _asked_about(self, caller: Principal, request: policy_pb2.ExplainPolicyRequest) -> Principal:
        """The principal that a request is about: the caller itself, or another one if the caller may know that."""
        name = check_name(request.principal, "principal", required=False) or caller.name
        for field in ("reason", "address"):
            check_name(getattr(request, field), field, required=False)
        if len(request.groups) > _MAX_GROUPS or len(request.roles) > len(Role):
            raise InvalidArgument("There are too many roles or groups.", hint="Name those that matter.")
        itself = caller.kind is Kind.USER and name == caller.name and not request.roles and not request.groups
        if not itself and caller.kind is not Kind.LOCAL:
            resource = Resource(owner=name, request=request)
            decision = await self._authoriser.decide(caller, _BY_NAME["ExplainPolicy"], resource)
            if decision.refusal is not None:
                raise decision.refusal
        roles = tuple(map(_role, request.roles)) or (caller.roles if name == caller.name else self._roles_of(name))
        if not roles and not itself and not request.groups:
            raise InvalidArgument(
                f"It is not known which roles {printable(name)} has.",
                hint="Say so with --role; there is no token of that name.",
            )
        return Principal(
            name=name,
            kind=Kind.USER,
            roles=roles,
            groups=tuple(check_name(group, "groups") for group in request.groups) or (caller.groups if itself else ()),
            address=request.address or caller.address,
        )


def _action(name: str) -> Action:
    if name not in actions():
        near = [found for found, _, _ in process.extract(name[:100], actions(), limit=3)]
        raise InvalidArgument(
            f"{printable(name[:100])!r} is no action that policies decide about.", hint=f"Did you mean {', '.join(near)}?"
        )
    return _BY_NAME[name]


def _role(name: str) -> Role:
    try:
        return Role(name)
    except ValueError:
        raise InvalidArgument(f"{printable(name[:100])!r} is no role.", hint=f"Choose one of {', '.join(Role)}.") from None


def _resource(action: Action, request: policy_pb2.ExplainPolicyRequest) -> Resource:
    needs_service = action.reach in (Reach.SERVICE, Reach.SESSION)
    check_name(request.service_name, "service_name", required=needs_service)
    for field in ("function_name", "agent_id", "owner"):
        check_name(getattr(request, field), field, required=False)
    if request.mode not in ("", *Mode):
        raise InvalidArgument(f"{printable(request.mode[:100])!r} is no mode.", hint=f"Choose one of {', '.join(Mode)}.")
    attach = action.name in ("AttachUprobe", "ApproveAttach")
    asked_ns = duration_ns(request.duration) if request.HasField("duration") else _DEFAULT_NS
    if not 0 <= asked_ns <= _MAX_DURATION_NS:
        raise InvalidArgument("duration is negative, or longer than anything lasts.", hint="Choose one up to 10m.")
    return Resource(
        service_name=request.service_name,
        function_name=request.function_name,
        agent_id=request.agent_id,
        owner=request.owner,
        duration_ns=asked_ns if attach else None,
        mode=(request.mode or Mode.EVENTS) if attach else "",
        captures_values=request.capture_values,
        reason=request.reason,
    )
