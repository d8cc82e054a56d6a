"""Questions to policies, short enough to read in a test."""

from __future__ import annotations

import functools
from typing import Any

from coral.model.principal import Kind, Principal, Role
from coral.trust.policy.policies import Policies, Source, default_source, load
from coral.trust.policy.question import Circumstances, Question, Target

NOW_NS = 1_795_000_000_000_000_000
"""2026-11-18 11:06:40 UTC."""


def user(name: str = "alice", *roles: str, groups: tuple[str, ...] = (), address: str = "192.0.2.7:40000") -> Principal:
    """A user with those roles."""
    return Principal(name=name, kind=Kind.USER, roles=tuple(Role(role) for role in roles), groups=groups, address=address)


def ask(
    action: str,
    *roles: str,
    service: str | None = None,
    environment: str = "",
    principal: Principal | None = None,
    **told: Any,
) -> Question:
    """May a user with those roles do it; to ``service``, or to the colony."""
    return Question(
        principal=principal or user("alice", *roles),
        action=action,
        at_ns=NOW_NS,
        target=None if service is None else Target(name=service, environment=environment, labels={"env": environment}),
        circumstances=Circumstances(**told),
    )


@functools.cache
def policies(*texts: str) -> Policies:
    """The default policies, and those texts as files named a.cedar, b.cedar and so on."""
    return load([default_source(), *(Source(name=f"{chr(97 + n)}.cedar", text=text) for n, text in enumerate(texts))])
