"""The client of a colony's policies and approvals."""

from __future__ import annotations

from coral.client.colony import ColonyClient
from coral.client.endpoint import Endpoint
from coral.wire._generated.colony.v1 import policy_pb2, policy_pb2_grpc


class PolicyClient(ColonyClient):
    """A colony's client that also asks about its policies; methods raise as those of ``ColonyClient`` do."""

    def __init__(self, endpoint: Endpoint | str) -> None:
        """Opens a channel, as ``ColonyClient`` does."""
        super().__init__(endpoint)
        self._policy = policy_pb2_grpc.PolicyServiceStub(self.channel)

    async def check(self) -> policy_pb2.CheckPoliciesResponse:
        """Which policies are in force, and why newer ones are not."""
        response: policy_pb2.CheckPoliciesResponse = await self.call(
            self._policy.CheckPolicies, policy_pb2.CheckPoliciesRequest()
        )
        return response

    async def explain_policy(self, request: policy_pb2.ExplainPolicyRequest) -> policy_pb2.ExplainPolicyResponse:
        """What would be decided, and by which policies."""
        response: policy_pb2.ExplainPolicyResponse = await self.call(self._policy.ExplainPolicy, request)
        return response

    async def approvals(self, *, everything: bool) -> list[policy_pb2.Approval]:
        """Requests for approval that wait or are approved; or all that are kept."""
        response = await self.call(self._policy.ListApprovals, policy_pb2.ListApprovalsRequest(all=everything))
        return list(response.approvals)

    async def decide(self, approval_id: str, *, approve: bool, reason: str) -> policy_pb2.Approval:
        """Approves or denies a request."""
        request = policy_pb2.DecideApprovalRequest(approval_id=approval_id, approve=approve, reason=reason)
        response: policy_pb2.DecideApprovalResponse = await self.call(self._policy.DecideApproval, request)
        return response.approval
