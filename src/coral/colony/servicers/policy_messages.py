"""Policies and requests for approval as messages."""

from __future__ import annotations

from coral.colony.access.actions import Resource
from coral.colony.store.approvals import Approval
from coral.trust.policy.policies import Policy
from coral.wire._generated.colony.v1 import policy_pb2
from coral.wire.convert import duration, timestamp


def policy_message(policy: Policy) -> policy_pb2.Policy:
    """A policy, as far as people are told of it."""
    return policy_pb2.Policy(
        policy_id=policy.policy_id,
        effect=policy.effect,
        source=policy.source,
        line=policy.line,
        description=policy.description,
        approval=policy.approval,
    )


def approval_message(approval: Approval, state: str) -> policy_pb2.Approval:
    """A request for approval.

    Args:
        approval: As it is kept.
        state: What state it is in now.
    """
    return policy_pb2.Approval(
        approval_id=approval.approval_id,
        state=state,
        requested_by=approval.requested_by,
        action=approval.action,
        service_name=approval.service_name,
        function_name=approval.function_name,
        duration=duration(approval.duration_ns),
        capture_values=approval.capture_values,
        mode=approval.mode,
        agent_id=approval.agent_id,
        reason=approval.reason,
        request=approval.request,
        policy_id=approval.policy_id,
        policy_reason=approval.policy_reason,
        requested_at=timestamp(approval.requested_at_ns),
        expires_at=timestamp(approval.expires_at_ns),
        decided_by=approval.decided_by,
        decided_at=timestamp(approval.decided_at_ns) if approval.decided_at_ns else None,
        comment=approval.comment,
        used_at=timestamp(approval.used_at_ns) if approval.used_at_ns else None,
    )


def approval_resource(approval: Approval) -> Resource:
    """What is to be approved, as policies are asked about it; its owner is who asked to do it."""
    return Resource(
        service_name=approval.service_name,
        function_name=approval.function_name,
        agent_id=approval.agent_id,
        owner=approval.requested_by,
        duration_ns=approval.duration_ns,
        mode=approval.mode,
        captures_values=approval.capture_values,
        reason=approval.reason,
    )
