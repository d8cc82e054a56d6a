"""The table of actions: it covers every RPC, and reads what a request is about from the request itself."""

from __future__ import annotations

import asyncio
from itertools import product

import pytest
from google.protobuf.duration_pb2 import Duration

from coral.colony.access.actions import ACTIONS, Reach, Resource, resource_of
from coral.colony.access.authorise import RoleAuthoriser, at_least
from coral.model.principal import Kind, Principal, Role
from coral.model.session import Session, Status
from coral.wire._generated.colony.v1 import debug_pb2, registry_pb2
from coral.wire._generated.mesh.v1 import ebpf_pb2


def test_names_are_unique_and_the_rpcs_own() -> None:
    """Policies and the audit log call an action by the name of its RPC, so no two services may have one of a name."""
    names = [action.name for action in ACTIONS.values()]
    assert len(set(names)) == len(names)
    assert [method.rpartition("/")[2] for method in ACTIONS] == names


def test_every_action_is_somebodys() -> None:
    """What users may call has a least role, what they may not has none; nothing is open to callers without credentials."""
    for action in ACTIONS.values():
        assert (action.role is not None) == (Kind.USER in action.callers), action
        assert action.callers <= {Kind.USER, Kind.AGENT, Kind.INVITED}, action
        assert (action.reach is Reach.AGENT) == (Kind.USER not in action.callers), action


def test_what_a_request_is_about() -> None:
    """Service, function, duration and values of an attach are read from it, with its defaults."""
    request = debug_pb2.AttachUprobeRequest(
        service_name="checkout",
        function_name="pay",
        agent_id="web-1",
        reason="slow",
        duration=Duration(seconds=90, nanos=5),
        config=ebpf_pb2.UprobeConfig(capture_return=True),
    )
    assert resource_of(request) == Resource(
        service_name="checkout",
        function_name="pay",
        agent_id="web-1",
        reason="slow",
        duration_ns=90_000_000_005,
        mode="events",
        captures_values=True,
    )
    plain = resource_of(debug_pb2.AttachUprobeRequest(config=ebpf_pb2.UprobeConfig(mode="count")))
    assert (plain.duration_ns, plain.mode, plain.captures_values) == (60_000_000_000, "count", False)
    assert resource_of(registry_pb2.HeartbeatRequest(agent_id="web-1")) == Resource(agent_id="web-1")


def test_a_session_says_what_it_is_of() -> None:
    """What a request says of a service beside a session does not count: it could be a lie."""
    session = Session(
        session_id="S1", service_name="vault", function_name="unseal", agent_id="", started_at_ns=0, expires_at_ns=0,
        status=Status.ACTIVE, requested_by="ann",
    )  # fmt: skip
    asked = resource_of(debug_pb2.GetDebugResultsRequest(session_id="S1", service_name="checkout"))
    assert asked.of(session) == Resource(session_id="S1", service_name="vault", function_name="unseal", owner="ann")


@pytest.mark.parametrize(
    ("role", "action"), list(product(Role, ACTIONS.values())), ids=lambda value: getattr(value, "name", "")
)
def test_roles(role: Role, action: object) -> None:
    """A role may whatever a lesser one may, and nobody what is no user's business."""
    found = next(one for one in ACTIONS.values() if one is action)
    decision = asyncio.run(RoleAuthoriser().decide(Principal(name="ann", kind=Kind.USER, roles=(role,)), found, Resource()))
    assert decision.allowed == (found.role is not None and at_least(role, found.role))
    if decision.refusal is not None:
        assert (decision.refusal.code, decision.refusal.details["action"]) == ("PERMISSION_DENIED", found.name)


@pytest.mark.parametrize(("role", "allowed"), [(Role.OPERATOR, False), (Role.INVESTIGATOR, False), (Role.ADMIN, True)])
def test_only_admins_end_the_sessions_of_others(role: Role, allowed: bool) -> None:
    """The refusal says whose it is; one's own may be ended."""
    ann = Principal(name="ann", kind=Kind.USER, roles=(role,))
    detach = ACTIONS["/coral.colony.v1.DebugService/DetachUprobe"]
    others = asyncio.run(RoleAuthoriser().decide(ann, detach, Resource(session_id="S1", owner="bob")))
    assert others.allowed == allowed
    assert allowed or "bob's" in str(others.refusal)
    assert asyncio.run(RoleAuthoriser().decide(ann, detach, Resource(session_id="S1", owner="ann"))).allowed
