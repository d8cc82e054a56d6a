"""What policies say of a function by all that its code is called."""

from __future__ import annotations

import pytest
from support.policies import ask

from coral.model.resolved import ResolvedFunction
from coral.trust.policy.names import MOST_NAMES, decide_names
from coral.trust.policy.policies import Policies, Source, default_source, load

PAY = ("shop::pay(int)", "shop::pay", "_ZN4shop3payEi")
WORK = ("work",)


def _policies(text: str, *, default: bool = True) -> Policies:
    sources = [Source(name="own.cedar", text=text)]
    return load([default_source(), *sources] if default else sources)


def _outcome(policies: Policies, *called: tuple[str, ...], complete: bool = True) -> tuple[bool, str, list[str]]:
    """Whether it is allowed, the name that decided, and the policies that want an approval."""
    asked = ask("AttachUprobe", "operator", service="checkout", function="pay")
    found = decide_names(policies, asked, [ResolvedFunction(name="pay", file="shop", called=called, complete=complete)])
    approvals = [policy.policy_id for policy in found.approvals]
    return found.decision.allowed, found.question.circumstances.function, approvals


@pytest.mark.parametrize("name", [*PAY, *(f"shop!{way}" for way in PAY), "work"])
def test_a_ban_on_any_name_is_one_on_the_code(name: str) -> None:
    """Also on an alias, or on the name with its file; other names do nothing."""
    policies = _policies(f'forbid (principal, action, resource) when {{ context.function == "{name}" }};')
    assert _outcome(policies, PAY, WORK) == (False, name, [])
    assert _outcome(policies, ("other",)) == (True, "pay", [])


def test_a_permit_is_for_a_function_and_not_for_what_shares_its_code() -> None:
    """One way of writing a function suffices, and each function of the code has to be permitted."""
    text = 'permit (principal, action, resource) when { context.function == "shop::pay" };'
    policies = _policies(text, default=False)
    assert _outcome(policies, PAY) == (True, "pay", [])
    assert _outcome(policies, PAY, WORK) == (False, "work", [])
    assert _outcome(policies, ("other::shop::pay",)) == (False, "other::shop::pay", [])


def test_an_approval_for_any_name_is_needed() -> None:
    """All policies that ask for one are told."""
    text = "".join(
        f'@id("{name}") @approval("why") permit (principal, action == Action::"AttachUprobe", resource) '
        f'when {{ context.function == "{name}" }};'
        for name in ("work", "_ZN4shop3payEi")
    )
    assert _outcome(_policies(text), PAY, WORK) == (True, "pay", ["_ZN4shop3payEi", "work"])


def test_what_cannot_be_known_by_all_of_its_names_is_refused() -> None:
    """There may be a banned one among those that were not told."""
    policies = _policies('forbid (principal, action, resource) when { context.function == "x" };')
    assert not _outcome(policies, PAY, complete=False)[0]
    assert not _outcome(policies, tuple(f"alias_{number}" for number in range(MOST_NAMES)))[0]


@pytest.mark.parametrize(
    ("condition", "speaks"),
    [
        ('context.function like "a*"', True),
        ('context["function"] == "a"', True),
        ("context has function", True),
        ("context == context", True),
        ('{"a": context}.a.reason == "x"', True),
        ('if context.duration_s > 3 then ["x"].contains(context.function) else true', True),
        ('context.mode == "count"', False),
        ("context has ip && context.ip.isLoopback()", False),
    ],
)
def test_it_is_known_whether_policies_speak_of_functions(condition: str, speaks: bool) -> None:
    """However they get at the name; agents are asked only where one does."""
    policies = _policies(f"forbid (principal, action, resource) when {{ {condition} }};")
    assert (load([default_source()]).speaks_of_functions, policies.speaks_of_functions) == (False, speaks)
