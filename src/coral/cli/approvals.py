"""Prints requests for approval, and answers them."""

from __future__ import annotations

import time

from coral.cli.documents import Document
from coral.cli.listings import emit_items
from coral.cli.options import Globals
from coral.cli.output import emit_document, narrate
from coral.cli.tables import emit_table
from coral.cli.times import local_moment, rfc3339
from coral.client.policy import PolicyClient
from coral.model.text import format_duration, printable
from coral.wire._generated.colony.v1 import policy_pb2
from coral.wire.convert import duration_ns, timestamp_ns

_COLUMNS = ("ID", "STATE", "WHO", "WHAT", "FOR", "UNTIL", "REASON", "POLICY")


async def show_approvals(options: Globals, *, everything: bool) -> None:
    """Prints the requests, newest first."""
    async with PolicyClient(options.endpoint()) as colony:
        found = await colony.approvals(everything=everything)
    if options.form != "table":
        emit_items(options, [approval_document(approval) for approval in found])
    elif not found:
        narrate("Nothing waits for an approval.")
    else:
        emit_table(
            _COLUMNS, [_row(approval) for approval in found], whole=("ID", "STATE"), spare=("POLICY",), color=options.color
        )


async def decide(options: Globals, approval_id: str, *, approve: bool, reason: str) -> None:
    """Answers a request, and prints what became of it."""
    async with PolicyClient(options.endpoint()) as colony:
        decided = await colony.decide(approval_id, approve=approve, reason=reason)
    if options.form != "table":
        emit_document(approval_document(decided))
        return
    emit_table(_COLUMNS, [_row(decided)], whole=("ID", "STATE"), spare=("POLICY",), color=options.color)
    if approve:
        narrate(f"{decided.requested_by} can now run the same command again, once.")


def approval_document(approval: policy_pb2.Approval) -> Document:
    """A request for approval as JSON has it."""
    return {
        "approval_id": approval.approval_id,
        "state": approval.state,
        "requested_by": approval.requested_by,
        "action": approval.action,
        "service_name": approval.service_name,
        "function_name": approval.function_name,
        "duration_ns": duration_ns(approval.duration),
        "capture_values": approval.capture_values,
        "mode": approval.mode,
        "agent_id": approval.agent_id,
        "reason": approval.reason,
        "request": approval.request,
        "policy_id": approval.policy_id,
        "policy_reason": approval.policy_reason,
        "requested_at": rfc3339(timestamp_ns(approval.requested_at)),
        "expires_at": rfc3339(timestamp_ns(approval.expires_at)),
        "decided_by": approval.decided_by,
        "decided_at": rfc3339(timestamp_ns(approval.decided_at)) if approval.HasField("decided_at") else None,
        "comment": approval.comment,
        "used_at": rfc3339(timestamp_ns(approval.used_at)) if approval.HasField("used_at") else None,
    }


def _row(approval: policy_pb2.Approval) -> tuple[str, ...]:
    by = f" by {approval.decided_by}" if approval.decided_by else ""
    if by and approval.state in ("used", "expired"):
        by = f", approved{by}"
    values = ", with values" if approval.capture_values else ""
    agent = f" on {approval.agent_id}" if approval.agent_id else ""
    return (
        approval.approval_id,
        f"{approval.state}{by}",
        approval.requested_by,
        printable(f"{approval.action} {approval.service_name} {approval.function_name}{agent}{values}"),
        format_duration(duration_ns(approval.duration)),
        local_moment(timestamp_ns(approval.expires_at), now_ns=time.time_ns()),
        approval.reason,
        f"{approval.policy_id}: {approval.policy_reason}" if approval.policy_reason else approval.policy_id,
    )
