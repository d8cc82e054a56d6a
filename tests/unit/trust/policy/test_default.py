"""The policies that come with Coral say what the documented roles say."""

from __future__ import annotations

import pytest
from support.policies import ask, policies

from coral.trust.policy.policies import actions, default_source

LOOK = (
    "ListAgents", "ListServices", "ListFunctions", "ExplainFunction", "ListDebugSessions", "QueryUprobeEvents",
    "FollowUprobeEvents", "GetDebugResults", "ListApprovals",
)  # fmt: skip
ADMIN = (
    "ExplainPolicy", "CheckPolicies", "CreateToken", "ListTokens", "RevokeToken", "CreateInvite", "RevokeAgent", "QueryAudit",
    "ExportAudit", "VerifyAudit", "PurgeData",
)  # fmt: skip
ROLES = ("", "viewer", "operator", "investigator", "admin")

TABLE = [
    *((action, {}, "viewer") for action in LOOK),
    ("AttachUprobe", {}, "operator"),
    ("AttachUprobe", {"capture_values": True}, "investigator"),
    ("DetachUprobe", {"owner": "alice"}, "operator"),
    ("DetachUprobe", {"owner": "bob"}, "admin"),
    ("UpdateProbeFilter", {"owner": "alice"}, "operator"),
    ("UpdateProbeFilter", {"owner": "bob"}, "admin"),
    ("ReadValues", {}, "investigator"),
    ("QueryDatabase", {}, "investigator"),
    ("DecideApproval", {}, "viewer"),
    ("ApproveAttach", {"owner": "bob"}, "admin"),
    *((action, {}, "admin") for action in ADMIN),
]
"""Action, circumstances, and the least role that may."""


@pytest.mark.parametrize(("action", "told", "least"), TABLE, ids=lambda value: str(value))
def test_each_role_may_what_it_is_documented_to(action: str, told: dict[str, object], least: str) -> None:
    """The least role and those above it may, the others may not, whichever service it is about."""
    colony_only = action in (
        *ADMIN, "ListAgents", "ListApprovals", "QueryDatabase", "DecideApproval",
    )  # fmt: skip
    service = None if colony_only else "checkout"
    may = [role for role in ROLES if policies().decide(ask(action, *filter(None, [role]), service=service, **told)).allowed]
    assert may == list(ROLES[ROLES.index(least) :])


def test_every_action_of_the_schema_is_in_the_table() -> None:
    """The table above leaves no action out."""
    assert set(actions()) == {action for action, _, _ in TABLE}
    assert len(set(actions())) == len(actions())


def test_every_default_policy_has_a_name_and_a_description() -> None:
    """Refusals and explanations can name every one of them and say what it is for."""
    described = {policy.policy_id: policy.description for policy in policies().all}
    assert all(described.values())
    assert not any(":" in name for name in described)
    assert default_source().text.count("@id(") == len(described) == 7
