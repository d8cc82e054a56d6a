"""Policies and what is asked of them: nothing crashes, and whoever has no role may nothing, whatever the names."""

from __future__ import annotations

import functools
import random
from pathlib import Path

from coral.model.errors import CoralError
from coral.model.principal import Kind, Principal, Role
from coral.trust.policy.cases import read_cases
from coral.trust.policy.policies import BrokenPolicies, Policies, Source, actions, default_source, load
from coral.trust.policy.question import Circumstances, Question, Target
from coral.trust.policy.words import explained
from fuzz.hostile_text import any_text, damaged, text

_CASES = b"""\
cases:
  - name: operators attach
    principal: {name: ann, roles: [operator], groups: [sre]}
    action: AttachUprobe
    resource: {service: checkout, labels: {env: prod}}
    context: {function: main.Pay, duration_s: 30, mode: events}
    expect: allow
"""
_PIECES = (
    "permit(principal, action, resource);", 'forbid(principal, action, resource) when { context.reason == "" };', '@id("x")',
    '@approval("y")', 'when { resource.name like "*" }', 'unless { principal.name == "ann" }', "// ", "/*", "(" * 400,
    'when { context.time.offset(duration("1h")) < context.time }', "!" * 400, "permit(principal == ?principal,", "[" * 400,
    'when { principal.roles.contains("admin") }', '"\\u{110000}"', "9223372036854775808", 'ip("::/0")',
)  # fmt: skip


def case(randomness: random.Random) -> str:
    """One damaged text, or one hostile question."""
    return randomness.choice((_text, _question, _question, _case_file))(randomness)


def _text(randomness: random.Random) -> str:
    written = default_source().text
    if randomness.random() < 0.5:
        written = damaged(randomness, written.encode()).decode("utf-8", "replace")
    for _ in range(randomness.randint(0, 3)):
        at = randomness.randint(0, len(written))
        written = written[:at] + randomness.choice(_PIECES) + written[at:]
    try:
        policies = load([Source(name="x.cedar", text=written)])
    except BrokenPolicies as error:
        assert error.faults
        assert all(str(fault).isprintable() for fault in error.faults), error.faults
        return "text: refused"
    policies.decide(_asked(randomness, Principal(name="ann", kind=Kind.USER, roles=(Role.VIEWER,))))
    return "text: in force"


def _question(randomness: random.Random) -> str:
    some = any_text if randomness.random() < 0.1 else text
    principal = Principal(
        name=some(randomness),
        kind=Kind.USER,
        address=some(randomness),
        groups=tuple(some(randomness) for _ in range(randomness.randint(0, 3))),
    )
    question = _asked(randomness, principal)
    decision = _default().decide(question)
    assert not decision.allowed, f"allowed: {question}"
    words = explained(_default(), question, decision)
    assert all(line.isprintable() for line in words.splitlines()), f"not printable: {words!r}"
    return f"question: {'trouble' if decision.trouble else 'denied'}"


def _case_file(randomness: random.Random) -> str:
    written = damaged(randomness, _CASES).decode("utf-8", "replace")
    try:
        read_cases(Path("x.yaml"), written)
    except CoralError as error:
        assert error.code == "INVALID_ARGUMENT", error
        return "cases: refused"
    return "cases: read"


def _asked(randomness: random.Random, principal: Principal) -> Question:
    # Half a surrogate pair makes everything else moot: Cedar takes no such text.
    some = any_text if randomness.random() < 0.1 else text
    target = Target(
        name=some(randomness),
        environment=some(randomness),
        labels={some(randomness): some(randomness) for _ in range(randomness.randint(0, 2))},
    )
    told = Circumstances(
        function=some(randomness),
        duration_s=randomness.choice((0, 60, -1, 1 << 40)),
        capture_values=randomness.random() < 0.5,
        mode=some(randomness),
        agent=some(randomness),
        owner=randomness.choice((principal.name, some(randomness))),
        reason=some(randomness),
    )
    return Question(
        principal=principal,
        action=randomness.choice((*actions(), some(randomness))),
        target=target if randomness.random() < 0.8 else None,
        circumstances=told,
        at_ns=randomness.choice((0, -1, 1_800_000_000_000_000_000, 1 << 63)),
    )


@functools.cache
def _default() -> Policies:
    return load([default_source()])
