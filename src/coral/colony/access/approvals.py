"""Approval by somebody else: asked for by a policy, given by another user, good for one request and a short time."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime

import duckdb
import structlog
from google.protobuf.json_format import MessageToDict
from ulid import ULID

from coral.colony.access.actions import Action, Resource
from coral.colony.audit import Audit
from coral.colony.store.approvals import Approval, delete_approvals, insert_approval, load_approvals, update_approval
from coral.colony.store.database import Database
from coral.model.errors import (
    CoralError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from coral.model.principal import Kind, Principal
from coral.model.probe import MAX_DURATION_NS, MIN_DURATION_NS
from coral.model.text import check_name, printable
from coral.trust.policy.policies import Policy
from coral.trust.policy.words import ApprovalRequired

MAX_WAITING = 20
"""Requests of one user that may wait at a time."""
MAX_KEPT = 5_000
KEPT_NS = 30 * 24 * 3600 * 1_000_000_000
_MAX_REQUEST_BYTES = 8_192
_MAX_REASON_BYTES = 1_024


_CLAIMED: ContextVar[list[Approval]] = ContextVar("claimed approvals")
"""By the call that is served."""

_log = structlog.get_logger(__name__)


class Approvals:
    """All requests: in memory, as in the control file, so that they outlive a restart."""

    def __init__(self, control: Database, audit: Audit, *, good_s: int, clock_ns: Callable[[], int] = time.time_ns) -> None:
        """Nothing is read yet.

        Args:
            control: The file that keeps them.
            audit: Where requests and their use are written down first.
            good_s: For how long a request waits, and for how long an approval is good.
            clock_ns: The wall clock.
        """
        self._control = control
        self._audit = audit
        self._good_ns = good_s * 1_000_000_000
        self._clock_ns = clock_ns
        self._all: dict[str, Approval] = {}

    async def load(self) -> None:
        """Reads what the file has."""
        self._all = {approval.approval_id: approval for approval in await self._control.read(load_approvals)}

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """What is claimed in the block is given back when the block fails: only what was done uses an approval up.

        Raises:
            CoralError: What the block raises.
        """
        claimed: list[Approval] = []
        _CLAIMED.set(claimed)  # of the task that serves one call, with which it ends
        try:
            yield
        except CoralError:
            for approval in claimed:
                await self._give_back(approval)
            raise

    async def claim(self, principal: Principal, action: Action, resource: Resource, policy: Policy) -> Approval:
        """Uses the approval of exactly this request up; asks for one where there is none.

        Args:
            principal: Who wants to do it.
            action: What.
            resource: To what; with its request.
            policy: The policy that asks for the approval.

        Returns:
            The approval, used now.

        Raises:
            ApprovalRequired: There is none yet; names the request for it.
            PermissionDenied: Somebody denied it.
            InvalidArgument: No one could approve this, whatever it is.
            ResourceExhausted: Too many requests of this user wait.
            Unavailable: It cannot be written down.
        """
        now_ns = self._now_ns()
        mark = fingerprint(principal, action, resource, policy)
        for claimed in _CLAIMED.get([]):
            if claimed.fingerprint == mark:  # by this call, which asks anew for all that its function is called
                return claimed
        for known in reversed(self._all.values()):
            if known.fingerprint != mark or known.expires_at_ns <= now_ns:
                continue
            if known.state == "approved":
                return await self._use(principal, known, now_ns)
            if known.state == "pending":
                raise _required(known)
            if known.state == "denied":
                raise PermissionDenied(
                    f"{known.decided_by} denied request {known.approval_id}{_said(known.comment)}.",
                    hint=f"It can be asked for anew after {_clock(known.expires_at_ns)}.",
                    details={"action": action.name, "policy": policy.policy_id, "approval_id": known.approval_id},
                )
        raise _required(await self._ask(principal, action, resource, policy, mark, now_ns))

    def get(self, approval_id: str) -> Approval:
        """One request.

        Raises:
            NotFound: There is none of that id.
        """
        try:
            return self._all[approval_id]
        except KeyError:
            raise NotFound(
                f"There is no request {printable(approval_id[:64])!r}.",
                hint="`coral approval list --all` shows those there are.",
            ) from None

    def listed(self, *, everything: bool) -> list[Approval]:
        """The requests that wait or are approved, newest first; or all that are kept."""
        now_ns = self._now_ns()
        newest = sorted(
            self._all.values(), key=lambda approval: (approval.requested_at_ns, approval.approval_id), reverse=True
        )
        return [one for one in newest if everything or one.state_at(now_ns) in ("pending", "approved")]

    def state(self, approval: Approval) -> str:
        """What state a request is in now."""
        return approval.state_at(self._now_ns())

    async def decide(self, approval_id: str, decider: Principal, *, approve: bool, comment: str) -> Approval:
        """Approves or denies a request; an approval that was not used yet can be withdrawn by denying it.

        Whether ``decider`` may is for the policies; that it is somebody else, for this.

        Raises:
            NotFound: There is no such request.
            PermissionDenied: It is the decider's own.
            FailedPrecondition: It does not wait any more.
            Unavailable: It cannot be written down.
        """
        if len(comment.encode(errors="surrogatepass")) > _MAX_REASON_BYTES:
            raise InvalidArgument("The reason is too long.", hint=f"At most {_MAX_REASON_BYTES:,} bytes are allowed.")
        found = self.get(approval_id)
        check_other(found, decider)
        now_ns = self._now_ns()
        state = found.state_at(now_ns)
        withdraws = state == "approved" and not approve
        if state != "pending" and not withdraws:
            raise FailedPrecondition(
                f"Request {found.approval_id} is {state}{f' by {found.decided_by}' if found.decided_by else ''}.",
                hint="It can be decided while it waits; let it be asked for anew.",
            )
        decided = replace(
            found,
            state="approved" if approve else "denied",
            decided_by=decider.name,
            decided_at_ns=now_ns,
            comment=printable(comment),
            expires_at_ns=now_ns + self._good_ns,
        )
        await self._change(found, decided)
        return decided

    async def _use(self, principal: Principal, approved: Approval, now_ns: int) -> Approval:
        used = replace(approved, state="used", used_at_ns=now_ns)
        # In memory first, so that two of the same request at a time do not both find it approved.
        self._all[approved.approval_id] = used
        entry = self._audit.entry(
            principal,
            "UseApproval",
            service_name=approved.service_name,
            function_name=approved.function_name,
            agent_id=approved.agent_id,
            reason=f"{approved.approval_id} approved by {approved.decided_by}{_said(approved.comment)}",
        )
        try:
            await self._audit.before(entry)
        except BaseException:
            self._all[approved.approval_id] = approved
            raise
        await self._change(approved, used)
        self._audit.outcome(entry)
        _CLAIMED.get([]).append(used)
        return used

    async def _give_back(self, used: Approval) -> None:
        """Makes an approval good again whose request came to nothing, for as long as it was to be good."""
        entry = self._audit.entry(
            Principal(name=used.requested_by, kind=Kind.USER),
            "ReturnApproval",
            service_name=used.service_name,
            function_name=used.function_name,
            agent_id=used.agent_id,
            reason=f"{used.approval_id}: the request that it was used for failed",
        )
        try:
            await self._audit.before(entry)
            await self._change(used, replace(used, state="approved", used_at_ns=0))
        except Unavailable as error:  # used up: nobody may use what is not written down
            _log.warning("an approval was not given back", approval_id=used.approval_id, error=str(error))
            return
        self._audit.outcome(entry)

    async def _ask(
        self, principal: Principal, action: Action, resource: Resource, policy: Policy, mark: str, now_ns: int
    ) -> Approval:
        request = _request_text(resource)
        waiting = [one for one in self._all.values() if one.state_at(now_ns) == "pending"]
        if sum(one.requested_by == principal.name for one in waiting) >= MAX_WAITING or len(waiting) >= MAX_KEPT:
            raise ResourceExhausted(
                f"{MAX_WAITING} requests of {principal.name} wait for somebody's approval.",
                hint="Let them be decided, or wait until they expire: `coral approval list`.",
            )
        asked = Approval(
            approval_id=str(ULID()),
            fingerprint=mark,
            state="pending",
            requested_by=principal.name,
            requester_roles=principal.role,
            action=action.name,
            service_name=resource.service_name,
            function_name=resource.function_name,
            duration_ns=resource.duration_ns or 0,
            capture_values=resource.captures_values,
            mode=resource.mode,
            agent_id=resource.agent_id,
            reason=printable(resource.reason),
            request=request,
            policy_id=policy.policy_id,
            policy_reason=policy.approval or "",
            requested_at_ns=now_ns,
            expires_at_ns=now_ns + self._good_ns,
        )
        gone = self._outlived(now_ns)
        self._all[asked.approval_id] = asked
        entry = self._audit.entry(
            principal,
            "RequestApproval",
            service_name=asked.service_name,
            function_name=asked.function_name,
            agent_id=asked.agent_id,
            reason=f"{asked.approval_id} for policy {asked.policy_id}{_said(asked.reason)}",
        )

        def write(connection: duckdb.DuckDBPyConnection) -> None:
            delete_approvals(connection, gone)
            insert_approval(connection, asked)

        try:
            await self._audit.before(entry)
            await self._control.write(write)
        except BaseException:
            del self._all[asked.approval_id]
            raise
        for approval_id in gone:
            self._all.pop(approval_id, None)
        self._audit.outcome(entry)
        return asked

    def _outlived(self, now_ns: int) -> list[str]:
        """Requests that are over and need not be kept."""
        over = [one for one in self._all.values() if one.state_at(now_ns) not in ("pending", "approved")]
        surplus = max(0, len(self._all) - MAX_KEPT + 1)
        return [one.approval_id for place, one in enumerate(over) if place < surplus or one.expires_at_ns < now_ns - KEPT_NS]

    async def _change(self, before: Approval, after: Approval) -> None:
        self._all[after.approval_id] = after
        try:
            await self._control.write(lambda connection: update_approval(connection, after))
        except BaseException:
            self._all[before.approval_id] = before
            raise

    def _now_ns(self) -> int:
        """In whole µs, which is what the file keeps."""
        return self._clock_ns() // 1000 * 1000


def fingerprint(principal: Principal, action: Action, resource: Resource, policy: Policy) -> str:
    """What an approval is bound to: who, what, by which policy, and every byte of the request."""
    names = json.dumps([principal.name, action.name, policy.policy_id, resource.service_name, resource.session_id])
    request = resource.request.SerializeToString(deterministic=True) if resource.request is not None else b""
    return hashlib.sha256(names.encode() + b"\0" + request).hexdigest()


def check_other(approval: Approval, decider: Principal) -> None:
    """That it is somebody else who decides.

    Raises:
        PermissionDenied: It is who asked.
    """
    if decider.name == approval.requested_by:
        raise PermissionDenied(
            f"{decider.name} may not ApproveAttach: request {approval.approval_id} is their own.",
            hint="It takes a second person.",
            details={"action": "ApproveAttach", "policy": "a second person", "approval_id": approval.approval_id},
        )


def _required(approval: Approval) -> ApprovalRequired:
    return ApprovalRequired(
        f"Policy {approval.policy_id!r} lets {approval.requested_by} do {approval.action} on {approval.service_name!r} "
        f"once somebody else has approved it{_said(approval.policy_reason)}. Request {approval.approval_id} waits until "
        f"{_clock(approval.expires_at_ns)}.",
        hint=f"Once it is approved (`coral approval approve {approval.approval_id}`), run the same command again.",
        details={
            "action": approval.action,
            "policy": approval.policy_id,
            "approval_id": approval.approval_id,
            "expires_at": datetime.fromtimestamp(approval.expires_at_ns // 1_000_000_000, UTC).isoformat(),
        },
    )


def _request_text(resource: Resource) -> str:
    """The request for the eyes of who decides.

    Raises:
        InvalidArgument: It could not be attached, or is too large to be looked through.
    """
    check_name(resource.service_name, "service_name")
    check_name(resource.function_name, "function_name")
    check_name(resource.agent_id, "agent_id", required=False)
    if len(resource.reason.encode()) > _MAX_REASON_BYTES:
        raise InvalidArgument("reason is too long.", hint=f"At most {_MAX_REASON_BYTES:,} bytes are allowed.")
    if not MIN_DURATION_NS <= (resource.duration_ns or 0) <= MAX_DURATION_NS:
        raise InvalidArgument("duration is not between 1 s and 600 s.", hint="Choose one that is.")
    if resource.request is None:
        return "{}"
    if resource.request.ByteSize() > _MAX_REQUEST_BYTES:
        raise InvalidArgument("The request is too large to be approved.", hint="Leave out what it does not need.")
    return json.dumps(MessageToDict(resource.request, preserving_proto_field_name=True))


def _said(text: str) -> str:
    return f" ({text})" if text else ""


def _clock(moment_ns: int) -> str:
    return datetime.fromtimestamp(moment_ns // 1_000_000_000, UTC).strftime("%H:%M:%S UTC")
