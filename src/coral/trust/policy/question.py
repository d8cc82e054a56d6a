"""What is asked of the policies: may this principal do this to that. As values, and as Cedar takes it."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from coral.model.principal import Principal, Role

_NS = 1_000_000_000
_COLONY = {"type": "Colony", "id": "colony"}
_LAST_S = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp())


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The service that is acted on.

    Attributes:
        name: Of the service.
        environment: Where it runs, such as ``prod``; empty if nobody said.
        labels: What the settings say of it.
    """

    name: str
    environment: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What else a policy can ask about; the schema's ``Asking``, apart from what belongs to the principal.

    Attributes:
        function: Of an attach, as the caller wrote it.
        duration_s: Of an attach.
        capture_values: Whether values of calls are captured, or looked at by a filter.
        mode: Of an attach.
        agent: The one agent that is meant.
        owner: Who began the session, or asked for the approval.
        reason: Why.
    """

    function: str = ""
    duration_s: int = 0
    capture_values: bool = False
    mode: str = ""
    agent: str = ""
    owner: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """May ``principal`` do ``action`` to ``target``?

    Attributes:
        principal: Who; a user.
        action: The name of what an RPC does.
        target: The service; None for the colony itself.
        circumstances: What else is known.
        at_ns: When, wall clock.
    """

    principal: Principal
    action: str
    at_ns: int
    target: Target | None = None
    circumstances: Circumstances = Circumstances()


def request_of(question: Question) -> dict[str, Any]:
    """The request, in the form that quotes nothing: names may hold anything."""
    told, principal = question.circumstances, question.principal
    now_s = min(max(question.at_ns // _NS, 0), _LAST_S)
    context: dict[str, Any] = {
        "function": told.function,
        "duration_s": told.duration_s,
        "capture_values": told.capture_values,
        "mode": told.mode,
        "agent": told.agent,
        "owner": told.owner,
        "reason": told.reason,
        "address": principal.address,
        "time": _extension("datetime", datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")),
    }
    ip = _ip(principal.address)
    if ip:
        context["ip"] = _extension("ip", ip)
    return {
        "principal": _principal_uid(principal),
        "action": {"type": "Action", "id": question.action},
        "resource": {"type": "Service", "id": question.target.name} if question.target else _COLONY,
        "context": context,
    }


def entities_of(question: Question) -> str:
    """The principal and the target as entities, with their attributes; JSON."""
    principal, target = question.principal, question.target
    attributes = {"name": principal.name, "roles": sorted(principal.roles), "groups": sorted(principal.groups)}
    parents = [{"type": "Role", "id": role} for role in principal.roles]
    parents += [{"type": "Group", "id": group} for group in principal.groups]
    found: list[dict[str, Any]] = [{"uid": _principal_uid(principal), "attrs": attributes, "parents": parents}]
    if target is not None:
        found.append(
            {
                "uid": {"type": "Service", "id": target.name},
                "attrs": {"name": target.name, "environment": target.environment},
                "tags": dict(target.labels),
                "parents": [],
            }
        )
    return json.dumps(found)


def role_entities() -> str:
    """The roles, each in the one before it; JSON."""
    roles = list(Role)
    return json.dumps(
        [
            {
                "uid": {"type": "Role", "id": role},
                "attrs": {},
                "parents": [{"type": "Role", "id": before} for before in roles[max(0, place - 1) : place]],
            }
            for place, role in enumerate(roles)
        ]
    )


def _principal_uid(principal: Principal) -> dict[str, str]:
    return {"type": "User", "id": principal.name}


def _extension(function: str, argument: str) -> dict[str, Any]:
    return {"__extn": {"fn": function, "arg": argument}}


def _ip(address: str) -> str:
    """The address of IP in HOST:PORT or [HOST]:PORT; empty if there is none."""
    host = address.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""
