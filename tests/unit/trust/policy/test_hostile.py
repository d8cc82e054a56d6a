"""Names from outside can be anything, and are never taken for a role, a policy, or somebody else."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.policies import ask, policies, user

from coral.trust.policy.policies import BrokenPolicies, Source, load

POLICIES = policies(
    '@id("payments") permit (principal == User::"alice", action in Action::"Debug", resource == Service::"payments");'
)
NAMES = st.text(max_size=60) | st.sampled_from(
    [
        'alice", "x": "', '"::Role::"admin"', 'Role::"admin"', "alice\0", "alice\n", "ALICE", "alicé", "\ud800",
        "\u202ealice",
        '{"__entity":{"type":"Role","id":"admin"}}', "admin", "payments ", "__extn", "a" * 5000, "<img onerror=x>", "'; DROP",
    ]
)  # fmt: skip


@settings(max_examples=80, deadline=None, derandomize=True)
@given(name=NAMES, service=NAMES, function=NAMES, group=NAMES, owner=NAMES, action=NAMES)
@example(name="alice", service="payments\0", function="", group="", owner="", action="AttachUprobe")
@example(name="alice ", service="payments", function="", group="", owner="", action="AttachUprobe")
def test_hostile_names_are_never_allowed(name: str, service: str, function: str, group: str, owner: str, action: str) -> None:
    """A user without a role, of any name and group, may do nothing to any service, whatever the action is called."""
    who = user(name, groups=(group,), address=f"{name}:1")
    told = {"function": function, "owner": owner, "reason": name, "agent": group, "mode": function}
    if (name, service) != ("alice", "payments"):
        for attempted in ("AttachUprobe", "DetachUprobe", "ReadValues", "ApproveAttach"):
            decision = POLICIES.decide(ask(attempted, principal=who, service=service, **told))
            assert (decision.allowed, decision.policies) == (False, ())
    assert not POLICIES.decide(ask(action, principal=who, **told)).allowed


@settings(max_examples=80, deadline=None, derandomize=True)
@given(text=st.text(max_size=300) | st.lists(
    st.sampled_from([
        "permit", "forbid", "(", ")", "{", "}", "[", "]", ";", '"', "principal", "action", "resource", ",", "when", "if",
        "then", "else", "==", "&&", "context", ".", "a", "1", "@id", "//", "\n", "\\", " like ", "::", "!", "-", "?principal",
    ]), max_size=80).map(" ".join))  # fmt: skip
def test_any_text_is_policies_or_faults(text: str) -> None:
    """What is no policy is refused with where and why, and nothing else happens."""
    try:
        load([Source(name="fuzz.cedar", text=text)])
    except BrokenPolicies as error:
        assert error.faults
        assert all(1 <= fault.line <= text.count("\n") + 1 and fault.message for fault in error.faults)
