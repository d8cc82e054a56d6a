"""Policies are held to the schema before they count, and every answer says which of them gave it."""

from __future__ import annotations

import dataclasses
import statistics
import time

import pytest
from support.policies import ask, policies, user

from coral.model.errors import PermissionDenied
from coral.model.principal import Kind
from coral.trust.policy.policies import BrokenPolicies, Source, load
from coral.trust.policy.words import explained, refusal

PROD = """
@id("prod-four-eyes")
@description("Somebody else looks at probes in production.")
@approval("production needs a second pair of eyes")
permit (principal in Role::"operator", action == Action::"AttachUprobe", resource)
when { resource.environment == "prod" };

@id("no-passwords")
@description("Nobody probes what handles passwords.")
forbid (principal, action == Action::"AttachUprobe", resource)
when { context.function like "*assword*" };
"""


def faults(*texts: str) -> list[str]:
    """What is wrong with texts named a.cedar, b.cedar and so on."""
    with pytest.raises(BrokenPolicies) as caught:
        policies(*texts)
    return [str(fault) for fault in caught.value.faults]


def test_a_permit_names_the_policies_that_apply() -> None:
    """A decision has every permit that applies, the default ones first."""
    decision = policies(PROD).decide(ask("AttachUprobe", "operator", service="web", environment="prod"))
    assert [str(policy) for policy in decision.policies] == [
        "policy 'operators-attach' (default.cedar:13)",
        "policy 'prod-four-eyes' (a.cedar:2)",
    ]


def test_one_permit_that_asks_for_approval_is_enough_to_need_one() -> None:
    """The default policy permits it as well, and an approval is needed all the same; elsewhere it is not."""
    prod = policies(PROD).decide(ask("AttachUprobe", "operator", service="web", environment="prod"))
    staging = policies(PROD).decide(ask("AttachUprobe", "operator", service="web", environment="staging"))
    assert prod.approval is not None
    assert (prod.allowed, prod.approval.policy_id, prod.approval.approval) == (
        True,
        "prod-four-eyes",
        "production needs a second pair of eyes",
    )
    assert (staging.allowed, staging.approval) == (True, None)


def test_a_forbid_wins_and_is_named() -> None:
    """Even an admin is refused, by the policy's name, place and description."""
    asked = ask("AttachUprobe", "admin", service="web", environment="prod", function="checkPassword")
    decision = policies(PROD).decide(asked)
    error = refusal(policies(PROD), asked, decision)
    assert isinstance(error, PermissionDenied)
    assert error.message == (
        "alice (admin) may not do AttachUprobe on service 'web': policy 'no-passwords' (a.cedar:8) forbids it: "
        "Nobody probes what handles passwords."
    )
    assert error.details == {"action": "AttachUprobe", "policy": "no-passwords"}


def test_what_nothing_permits_is_refused_with_the_role_that_would_do() -> None:
    """The error names the action and the least role that may; where no role may, it says that."""
    asked = ask("AttachUprobe", "viewer", service="web")
    error = refusal(policies(), asked, policies().decide(asked))
    assert str(error) == (
        "No policy permits alice (viewer) to do AttachUprobe on service 'web'. "
        "The role operator may: ask for a token with it (`coral token create NAME --role operator`)."
    )
    only_group = policies('forbid (principal, action, resource) unless { principal in Group::"sre" };')
    asked = ask("AttachUprobe", "admin", service="web")
    error = refusal(only_group, asked, only_group.decide(asked))
    assert str(error) == (
        "alice (admin) may not do AttachUprobe on service 'web': policy a.cedar:1 forbids it. Ask who keeps the policies."
    )


def test_explanations_say_what_permits_and_what_is_still_needed() -> None:
    """One sentence each for a plain permission and for one that needs an approval."""
    found = policies(PROD)
    plain = ask("AttachUprobe", "operator", service="web", environment="staging")
    four_eyes = ask("AttachUprobe", "operator", service="web", environment="prod")
    assert explained(found, plain, found.decide(plain)) == (
        "alice (operator) may do AttachUprobe on service 'web'. Permitted by policy 'operators-attach' (default.cedar:13)."
    )
    assert explained(found, four_eyes, found.decide(four_eyes)) == (
        "alice (operator) may do AttachUprobe on service 'web' once somebody else has approved it: policy 'prod-four-eyes' "
        "(a.cedar:2) asks for that (production needs a second pair of eyes). Permitted by policy 'operators-attach' "
        "(default.cedar:13), policy 'prod-four-eyes' (a.cedar:2)."
    )


def test_policies_can_speak_of_everything_that_is_known() -> None:
    """Groups, exact roles, labels, duration, mode, agent, reason, address and time decide as written."""
    text = """
    @id("all-of-it") permit (principal in Group::"sre", action == Action::"AttachUprobe", resource)
    when {
      principal.roles.contains("viewer") && principal.groups.contains("sre") && resource.name like "pay*" &&
      resource.hasTag("env") && resource.getTag("env") == "prod" && context.duration_s <= 60 && context.mode == "count" &&
      context.agent == "host-1" && context.reason != "" && context has ip && context.ip.isInRange(ip("192.0.2.0/24")) &&
      context.address like "192.0.2.*" && context.time.toTime() >= duration("9h") && context.time.toTime() < duration("17h")
    };
    """
    who = user("alice", "viewer", groups=("sre", "all"))
    told = {"duration_s": 60, "mode": "count", "agent": "host-1", "reason": "slow checkout"}
    good = ask("AttachUprobe", principal=who, service="payments", environment="prod", **told)
    assert [policy.policy_id for policy in policies(text).decide(good).policies] == ["all-of-it"]
    for change in (
        {"duration_s": 61}, {"mode": "events"}, {"agent": ""}, {"reason": ""},
    ):  # fmt: skip
        asked = ask("AttachUprobe", principal=who, service="payments", environment="prod", **{**told, **change})
        assert not policies(text).decide(asked).allowed, change
    for other in (
        dataclasses.replace(good, principal=dataclasses.replace(who, groups=())),
        dataclasses.replace(good, principal=dataclasses.replace(who, address="198.51.100.1:1")),
        dataclasses.replace(good, principal=dataclasses.replace(who, address="unix:")),
        dataclasses.replace(good, at_ns=good.at_ns - 3 * 3600 * 1_000_000_000),
    ):
        assert not policies(text).decide(other).allowed, other


def test_faults_are_named_with_their_lines() -> None:
    """Syntax, names that the schema has not, misspelt annotations, templates: each with file and line."""
    text = """// a comment; with a semicolon
permit (principal, action, resource)
when {
  context.durtion_s > 3
};
permit (principal, action == Action::"AtachUprobe", resource);
permit (principal, actoin, resource);
@approvl("x") permit (principal, action, resource);
@approval("x") forbid (principal, action, resource);
permit (principal == ?principal, action, resource);
permit (principal, action, resource) when { context.duration_s == "a;b" };
@id("") permit (principal, action, resource);
permit (principal, action, resource) when { "a" }
"""
    assert faults(text) == [
        "a.cedar:4: attribute `durtion_s` in context not found",
        "a.cedar:6: unable to find an applicable action given the policy scope constraints",
        'a.cedar:6: unrecognized action `Action::"AtachUprobe"`',
        "a.cedar:7: found an invalid variable in the policy scope: actoin",
        "a.cedar:8: @approvl means nothing here: there are @id, @description, @approval",
        'a.cedar:9: @approval is for permits of action == Action::"AttachUprobe": what else they permit cannot be approved',
        "a.cedar:10: it is a template: Coral fills in none",
        "a.cedar:11: the types Long and String are not compatible",
        "a.cedar:12: @id is empty",
        "a.cedar:13: it does not end with a semicolon",
    ]


def test_two_policies_of_one_id_are_refused() -> None:
    """A name stands for one policy, in all files together."""
    assert faults('@id("x") permit (principal, action, resource);', '\n@id("x") forbid (principal, action, resource);') == [
        'b.cedar:2: @id("x") is taken by a.cedar:1'
    ]


@pytest.mark.parametrize(
    "body",
    ["(" * 60 + "true" + ")" * 60, "[" * 60 + "]" * 60 + " == []", "if true then " * 60 + "true" + " else false" * 60],
    ids=["parentheses", "sets", "branches"],
)
def test_deep_nesting_is_refused_before_it_is_parsed(body: str) -> None:
    """Cedar's parser would end the process with it when it is deep enough."""
    assert faults(f"permit (principal, action, resource) when {{ {body} }};") == ["a.cedar:1: it is nested more than 50 deep"]


def test_long_chains_are_refused() -> None:
    """What nests without brackets is bounded by its length, or by Cedar itself."""
    assert faults("permit (principal, action, resource) when { true" + " && true" * 2000 + " };") == [
        "a.cedar:1: it has more than 8,192 bytes"
    ]
    assert faults("permit (principal, action, resource) when { true" + " && true" * 700 + " };") == [
        "a.cedar:1: it is a chain too long for Cedar: use sets, or several policies"
    ]


def test_a_thousand_policies_are_the_most() -> None:
    """More than that is refused, whatever they say."""
    with pytest.raises(BrokenPolicies) as caught:
        load([Source(name="many.cedar", text=";" * 1005)])
    assert str(caught.value.faults[-1]) == "many.cedar:1: there are more than 1,000 policies"
    assert len(caught.value.faults) == 1001


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.USER])
def test_only_users_are_decided_about(kind: Kind) -> None:
    """Whoever is no user gets nothing from policies, whatever its name and roles."""
    who = dataclasses.replace(user("alice", "admin"), kind=kind)
    decision = policies().decide(ask("ListAgents", principal=who))
    assert (decision.allowed, decision.trouble) == (False, "policies are about users")


def test_a_policy_that_fails_makes_the_answer_no() -> None:
    """A forbid that overflows is not skipped, as Cedar itself would: it might have forbidden."""
    text = "forbid (principal, action, resource) when { context.duration_s * 9223372036854775807 > 0 };"
    decision = policies(text).decide(ask("AttachUprobe", "admin", service="web", duration_s=60))
    assert not decision.allowed
    assert "overflow" in decision.trouble


def test_an_unknown_action_is_refused() -> None:
    """Even for an admin, who may do every action there is."""
    decision = policies().decide(ask("Reboot", "admin"))
    assert not decision.allowed
    assert 'Action::"Reboot"' in decision.trouble


def test_a_decision_is_quick() -> None:
    """Every call waits for one: half of them take less than 5 ms, also on a busy machine (some 0.3 ms on an idle one)."""
    found, asked = policies(PROD), ask("AttachUprobe", "operator", service="web", environment="prod")
    took = []
    for _ in range(50):
        began = time.perf_counter()
        found.decide(asked)
        took.append(time.perf_counter() - began)
    assert statistics.median(took) < 0.005
