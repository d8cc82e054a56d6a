"""Policies decide about every RPC of users, each by an action of the schema, and the default ones say what the table says."""

from __future__ import annotations

import asyncio

import pytest
from support.policies import user

from coral.colony.access.actions import ACTIONS, Action, Reach, Resource
from coral.colony.access.policies import APPROVE_ATTACH, READ_VALUES, CedarAuthoriser
from coral.colony.access.rights import Rights
from coral.colony.audit import Audit
from coral.colony.store.database import Database
from coral.colony.store.schema import CONTROL
from coral.config.settings import ColonySettings
from coral.model.principal import Kind, Principal, Role
from coral.model.session import Session, Status
from coral.trust.policy.policies import actions

DECIDED = [action for action in ACTIONS.values() if action.role is not None and action.reach is not Reach.SELF]
SESSION = Session(
    session_id="s",
    service_name="web",
    function_name="f",
    agent_id="",
    started_at_ns=1,
    expires_at_ns=2,
    status=Status.ACTIVE,
    requested_by="alice",
)


@pytest.fixture
def authoriser() -> CedarAuthoriser:
    """By the default policies."""
    control = Database(None, CONTROL)
    return Rights(ColonySettings(environment="prod"), control=control, audit=Audit(control)).authoriser


def test_policies_know_every_action_of_users() -> None:
    """A new RPC without an action that policies can speak of fails here; so does one that is no RPC's any more."""
    asked_besides = {READ_VALUES.name, APPROVE_ATTACH.name, "ExplainPolicy"}
    assert {action.name for action in DECIDED} | asked_besides == set(actions())


@pytest.mark.parametrize("action", [*DECIDED, READ_VALUES, APPROVE_ATTACH], ids=lambda action: action.name)
def test_default_policies_agree_with_the_table(action: Action, authoriser: CedarAuthoriser) -> None:
    """From its least role on an action is permitted, on a service that one began to debug oneself, and nobody else's."""
    service = action.reach in (Reach.SERVICE, Reach.SESSION)
    resource = Resource(service_name="web" if service else "", owner="alice" if service else "")
    decisions = {role: asyncio.run(authoriser.decide(user("alice", role), action, resource)) for role in Role}
    least = list(Role).index(action.role or Role.ADMIN)
    assert [role for role, decision in decisions.items() if decision.allowed] == list(Role)[least:]
    refused = [decision.refusal for decision in decisions.values() if decision.refusal is not None]
    assert all(error.details == {"action": action.name} for error in refused)
    assert not any("could not be asked" in error.message for error in refused)


@pytest.mark.parametrize("name", ["ListServices", "ListDebugSessions"])
def test_a_listing_of_one_service_is_about_that_service(name: str, authoriser: CedarAuthoriser) -> None:
    """Policies see its name and its environment."""
    (action,) = (one for one in ACTIONS.values() if one.name == name)
    target = authoriser.question(user(), action, Resource(service_name="web")).target
    assert target is not None
    assert (target.name, target.environment) == ("web", "prod")
    assert authoriser.question(user(), action, Resource()).target is None


@pytest.mark.parametrize(
    ("who", "sees"),
    [
        (user("vic", "viewer"), False),
        (user("alice", "operator"), False),
        (user("ida", "investigator"), True),
        (user("adm", "admin"), True),
        (Principal(name="root@host", kind=Kind.LOCAL), True),
        (Principal(name="agent:a", kind=Kind.AGENT, roles=(Role.ADMIN,)), False),
        (Principal(name="invite:a", kind=Kind.INVITED, roles=(Role.ADMIN,)), False),
    ],
    ids=lambda value: value.name if isinstance(value, Principal) else str(value),
)
def test_who_sees_captured_values(who: Principal, sees: bool, authoriser: CedarAuthoriser) -> None:
    """Investigators and admins, and whoever uses a colony that authenticates nobody; not even who began the session."""
    assert asyncio.run(authoriser.sees_values(who, SESSION)) is sees
