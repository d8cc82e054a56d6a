"""The colony's door: identity, limits, scope and policy in that order, and a record of every no."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from typing import Protocol

from google.protobuf.message import Message

from coral.colony.access.actions import ACTIONS, Action, Reach, Resource, resource_of
from coral.colony.access.authorise import Authoriser
from coral.colony.access.identities import Identities
from coral.model.errors import CoralError, Internal, InvalidArgument, NotFound, PermissionDenied, Unauthenticated
from coral.model.principal import AGENT_PREFIX, Kind, Principal
from coral.model.session import Session
from coral.model.text import check_name
from coral.wire.guard import Call

NOBODY = "unauthenticated"
"""The name of callers that are refused before it is known who they are."""


class Sessions(Protocol):
    """Where sessions are looked up."""

    async def view(self, session_id: str) -> Session:
        """One of them, running or ended.

        Raises:
            NotFound: There is none of that id.
        """
        ...


class Limits(Protocol):
    """How much of the colony one caller may have."""

    def check_address(self, call: Call) -> None:
        """Asked before a credential is looked at.

        Raises:
            ResourceExhausted: That address was refused too often.
        """
        ...

    def refused(self, call: Call) -> None:
        """Told when a credential did not count."""
        ...

    def serving(self, principal: Principal, call: Call) -> AbstractContextManager[None]:
        """Held while a call runs, from before its request is parsed.

        Raises:
            ResourceExhausted: On entering: too many calls, too many at once, or too large a request.
        """
        ...


class Refusals(Protocol):
    """Where refusals are recorded."""

    async def denied(self, principal: Principal, action: str, resource: Resource, error: CoralError) -> None:
        """Records that a call was refused, before its caller learns of it.

        Raises:
            Unavailable: It cannot be recorded.
        """
        ...


class ColonyGuard:
    """Guards a colony that asks for credentials.

    Args:
        identities: Who calls.
        limits: How much anybody may.
        authoriser: What users may.
        sessions: The sessions that requests name.
        refusals: Where every no is recorded.
        actions: The rules, by method.
    """

    def __init__(
        self,
        *,
        identities: Identities,
        limits: Limits,
        authoriser: Authoriser,
        sessions: Sessions,
        refusals: Refusals,
        actions: Mapping[str, Action] = ACTIONS,
    ) -> None:
        self._identities = identities
        self._limits = limits
        self._authoriser = authoriser
        self._sessions = sessions
        self._refusals = refusals
        self._actions = actions

    def check_methods(self, methods: Sequence[str]) -> None:
        """Every method has a rule.

        Raises:
            Internal: One has none.
        """
        for method in methods:
            self._action(method)

    async def authenticate(self, call: Call) -> Principal:
        """Who calls, by what it shows."""
        nobody = Principal(name=NOBODY, kind=Kind.USER, address=call.address)
        try:
            action = self._action(call.method)
            self._limits.check_address(call)
            principal = await self._identities.identify(call)
        except CoralError as error:
            if isinstance(error, Unauthenticated):
                self._limits.refused(call)
            await self._refusals.denied(nobody, call.method.rpartition("/")[2], Resource(), error)
            raise
        if principal.kind not in action.callers:
            raise await self._denied(principal, action, Resource(), _not_for(principal, action))
        return principal

    @asynccontextmanager
    async def serving(self, principal: Principal, call: Call) -> AsyncIterator[None]:
        """Within the limits of its caller."""
        with ExitStack() as held:
            try:
                held.enter_context(self._limits.serving(principal, call))
            except CoralError as error:
                raise await self._denied(principal, self._action(call.method), Resource(), error) from None
            async with self._authoriser.held():
                yield

    async def authorise(self, principal: Principal, call: Call, request: Message, raw: bytes) -> None:
        """Agents for themselves alone, users as scope and policy say."""
        action = self._action(call.method)
        resource = await self._resolved(resource_of(request))
        if principal.kind is Kind.AGENT:
            if action.reach is Reach.AGENT and principal.name != AGENT_PREFIX + resource.agent_id:
                raise await self._denied(principal, action, resource, _not_itself(principal, action, resource))
            return
        if principal.kind is not Kind.USER or action.reach is Reach.SELF:
            return
        if not _within_scope(principal, action, resource):
            raise await self._denied(principal, action, resource, _out_of_scope(principal, action, resource))
        decision = await self._authoriser.decide(principal, action, resource)
        if decision.refusal is not None:
            raise await self._denied(principal, action, resource, decision.refusal)

    async def recheck(self, principal: Principal, call: Call) -> None:
        """Whether the credential still counts."""
        await self._identities.recheck(principal, call)

    def _action(self, method: str) -> Action:
        try:
            return self._actions[method]
        except KeyError:
            raise Internal(
                f"There is no rule for {method}, so nobody may call it.", hint="Give it one in the table of actions."
            ) from None

    async def _resolved(self, resource: Resource) -> Resource:
        """With service, function and owner of the session that it names, if there is one: its handler says if not."""
        if not resource.session_id:
            return resource
        try:
            return resource.of(await self._sessions.view(check_name(resource.session_id, "session_id")))
        except (NotFound, InvalidArgument):
            return resource

    async def _denied(self, principal: Principal, action: Action, resource: Resource, error: CoralError) -> CoralError:
        await self._refusals.denied(principal, action.name, resource, error)
        return error


def _within_scope(principal: Principal, action: Action, resource: Resource) -> bool:
    """Whether the caller's credential is good for what it asks; a listing is narrowed to that by its handler."""
    if not principal.scope:
        return True
    if action.reach in (Reach.LISTING, Reach.SESSION) and not resource.service_name:
        return True  # the answer is narrowed, or there is no such session
    return action.reach is not Reach.COLONY and principal.in_scope(resource.service_name)


def _not_for(principal: Principal, action: Action) -> PermissionDenied:
    allowed = ", ".join(sorted(f"{kind}s" if kind is not Kind.INVITED else "invited hosts" for kind in action.callers))
    return PermissionDenied(
        f"{principal.name} may not {action.name}: that is for {allowed}.",
        hint="Use a credential of that kind.",
        details={"action": action.name, "policy": "kind of caller"},
    )


def _not_itself(principal: Principal, action: Action, resource: Resource) -> PermissionDenied:
    return PermissionDenied(
        f"{principal.name} may not {action.name} as agent {resource.agent_id[:256]!r}.",
        hint="An agent speaks for itself alone.",
        details={"action": action.name, "policy": "an agent's own name"},
    )


def _out_of_scope(principal: Principal, action: Action, resource: Resource) -> PermissionDenied:
    what = f"service {resource.service_name[:256]!r}" if resource.service_name else "the colony as a whole"
    return PermissionDenied(
        f"{principal.name} may not {action.name}: the token is good for {', '.join(principal.scope)}, not for {what}.",
        hint="Ask an admin for a token that is.",
        details={"action": action.name, "policy": "scope of the token"},
    )
