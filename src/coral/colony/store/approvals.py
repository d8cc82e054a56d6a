"""Requests for somebody else's approval, as the control file keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

_US = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One request: who wants to do what, why somebody else is asked, and what came of it. Times: wall clock, ns, whole µs.

    Attributes:
        approval_id: Its name.
        fingerprint: Of the principal, the policy and every byte of the request: what it is good for, and for nothing else.
        state: ``pending``, ``approved``, ``denied`` or ``used``; whether it has expired is a matter of the time.
        requested_by: The principal's name.
        requester_roles: Its roles, as one word.
        action: What.
        service_name: On which service.
        function_name: On which function.
        duration_ns: For how long.
        capture_values: Whether values are captured, or filtered by.
        mode: Of the probe.
        agent_id: The one agent; empty for all.
        reason: The requester's.
        request: All of what was asked for, as JSON.
        policy_id: The policy that asks for the approval.
        policy_reason: Why it does.
        requested_at_ns: When.
        expires_at_ns: Until then it can be decided, or once approved be used.
        decided_by: The other person's name; empty while there is none.
        decided_at_ns: When; 0 while it is not.
        comment: Of who decided.
        used_at_ns: When it was used; 0 while it is not.
    """

    approval_id: str
    fingerprint: str
    state: str
    requested_by: str
    requester_roles: str
    action: str
    service_name: str
    function_name: str
    duration_ns: int
    capture_values: bool
    mode: str
    agent_id: str
    reason: str
    request: str
    policy_id: str
    policy_reason: str
    requested_at_ns: int
    expires_at_ns: int
    decided_by: str = ""
    decided_at_ns: int = 0
    comment: str = ""
    used_at_ns: int = 0

    def state_at(self, now_ns: int) -> str:
        """Its state; ``expired`` if nobody decided, or used it, in time."""
        waiting = self.state in ("pending", "approved")
        return "expired" if waiting and self.expires_at_ns <= now_ns else self.state


def insert_approval(connection: duckdb.DuckDBPyConnection, approval: Approval) -> None:
    """Keeps a new request; a job for ``Database.write``, as the two below."""
    connection.execute(
        """
        INSERT INTO approvals VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, make_timestamptz(?::BIGINT),
            make_timestamptz(?::BIGINT), '', NULL, '', NULL)
        """,
        [
            approval.approval_id, approval.fingerprint, approval.state, approval.requested_by, approval.requester_roles,
            approval.action, approval.service_name, approval.function_name, approval.duration_ns, approval.capture_values,
            approval.mode, approval.agent_id, approval.reason, approval.request, approval.policy_id, approval.policy_reason,
            approval.requested_at_ns // _US, approval.expires_at_ns // _US,
        ],
    )  # fmt: skip


def update_approval(connection: duckdb.DuckDBPyConnection, approval: Approval) -> None:
    """Writes what changes in a request: that it was decided, and that it was used."""
    connection.execute(
        """
        UPDATE approvals SET state = ?, expires_at = make_timestamptz(?::BIGINT), decided_by = ?,
            decided_at = make_timestamptz(?::BIGINT), "comment" = ?, used_at = make_timestamptz(?::BIGINT)
        WHERE approval_id = ?
        """,
        [
            approval.state, approval.expires_at_ns // _US, approval.decided_by, _moment(approval.decided_at_ns),
            approval.comment, _moment(approval.used_at_ns), approval.approval_id,
        ],
    )  # fmt: skip


def delete_approvals(connection: duckdb.DuckDBPyConnection, approval_ids: Sequence[str]) -> None:
    """Forgets requests; the audit log has them."""
    connection.execute("DELETE FROM approvals WHERE list_contains(?::VARCHAR[], approval_id)", [list(approval_ids)])


def load_approvals(connection: duckdb.DuckDBPyConnection) -> list[Approval]:
    """All requests that are kept, oldest first."""
    found = connection.execute(
        """
        SELECT approval_id, fingerprint, state, requested_by, requester_roles, action, service_name, function_name,
            duration_ns, capture_values, mode, agent_id, reason, request, policy_id, policy_reason, epoch_ns(requested_at),
            epoch_ns(expires_at), decided_by, coalesce(epoch_ns(decided_at), 0), "comment", coalesce(epoch_ns(used_at), 0)
        FROM approvals ORDER BY requested_at, approval_id
        """
    ).fetchall()
    names = Approval.__dataclass_fields__
    return [Approval(**dict(zip(names, row, strict=True))) for row in found]


def _moment(value_ns: int) -> int | None:
    return value_ns // _US if value_ns else None
