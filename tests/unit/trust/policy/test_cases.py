"""Cases in YAML say what policies are meant to decide."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.policies import NOW_NS, policies

from coral.model.errors import InvalidArgument
from coral.trust.policy.cases import read_cases, try_case

TEXT = """
cases:
  - name: operators attach
    principal: {name: ann, roles: [operator]}
    action: AttachUprobe
    resource: {service: web, environment: staging}
    context: {duration_s: 60, function: main.Pay}
    expect: allow
    policy: operators-attach
  - principal: {name: ann, roles: [operator]}
    action: AttachUprobe
    resource: {service: web, labels: {env: prod}}
    expect: approval
  - principal: {name: ann, groups: [sre]}
    action: ListServices
    context: {time: 2026-11-24T03:00:00Z, address: "10.0.0.1:99"}
    expect: deny
  - name: wrongly expected
    principal: {name: vic, roles: [viewer]}
    action: AttachUprobe
    resource: {service: web}
    expect: allow
  - name: the wrong policy
    principal: {name: vic, roles: [viewer]}
    action: ListServices
    expect: allow
    policy: operators-attach
"""

PROD = """@approval("prod") permit (principal, action == Action::"AttachUprobe", resource)
when { resource.environment == "prod" };"""


def test_cases_come_out_as_expected_or_not() -> None:
    """Each case has what it expected and what it got; a policy that is named has to be among those that decided."""
    cases = read_cases(Path("t.yaml"), TEXT).cases
    verdicts = [try_case(policies(PROD), case, now_ns=NOW_NS) for case in cases]
    assert [(verdict.got, verdict.right) for verdict in verdicts] == [
        ("allow", True),
        ("approval", True),
        ("deny", True),
        ("deny", False),
        ("allow", False),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("cases: [", "is not YAML"),
        ("[" * 600, "is not YAML: it is nested too deeply"),
        ("", "The document in t.yaml is wrong"),
        ("cases:\n- {principal: {name: a}, action: X}", r"cases\[0\].expect in t.yaml is wrong: Field required"),
        ("cases:\n- {principal: {name: a, role: admin}, action: X, expect: deny}", r"cases\[0\].principal.role in t.yaml"),
        ("cases:\n- {principal: {name: a, roles: [root]}, action: X, expect: deny}", r"cases\[0\].principal.roles\[0\]"),
        ("cases:\n- {principal: {name: a}, action: X, expect: maybe}", r"cases\[0\].expect"),
        ("cases: []\n\x1b]0;: x", "is not YAML"),
    ],
)
def test_what_is_no_case_is_refused_with_its_place(text: str, why: str) -> None:
    """A misspelt key must not make a case ask something else."""
    with pytest.raises(InvalidArgument, match=why) as caught:
        read_cases(Path("t.yaml"), text)
    assert str(caught.value).isprintable()
