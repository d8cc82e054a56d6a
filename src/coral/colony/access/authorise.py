"""Whether a user may have something done: the seam behind which the policies are, and the answer by role alone."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from coral.colony.access.actions import Action, Resource
from coral.model.errors import CoralError, PermissionDenied
from coral.model.principal import Principal, Role

_ORDER = list(Role)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer to one question.

    Attributes:
        policies: Which policies decided; empty when none permits it.
        refusal: What to tell the caller: PermissionDenied, or another error where there is a way on, such as an approval;
            None if it may.
    """

    policies: tuple[str, ...] = ()
    refusal: CoralError | None = None

    @property
    def allowed(self) -> bool:
        """Whether it may."""
        return self.refusal is None


class Authoriser(Protocol):
    """Decides about users. What kind of caller may call a method at all has been decided before it is asked."""

    async def decide(self, principal: Principal, action: Action, resource: Resource) -> Decision:
        """Whether a user may have ``action`` done to ``resource``. Must be quick; what it raises refuses the call."""
        ...

    def held(self) -> AbstractAsyncContextManager[None]:
        """Around the serving of one call: what its permission used up is given back if it fails with a CoralError."""
        ...


class RoleAuthoriser:
    """Decides by role: each may what its action's least role may; operators end and change their own sessions only."""

    def held(self) -> AbstractAsyncContextManager[None]:
        """Roles are not used up."""
        return nullcontext()

    async def decide(self, principal: Principal, action: Action, resource: Resource) -> Decision:
        """Whether one of the caller's roles suffices."""
        least = action.role
        if least is None or not any(at_least(role, least) for role in principal.roles):
            needed = f"the role {least}" if least else "another kind of caller"
            return Decision(
                refusal=PermissionDenied(
                    f"{principal.name} may not {action.name}: that takes {needed}.",
                    hint="Ask an admin of this colony for a token with that role.",
                    details={"action": action.name, "policy": "roles"},
                )
            )
        own_only = action.name in ("DetachUprobe", "UpdateProbeFilter") and Role.ADMIN not in principal.roles
        if own_only and resource.owner and resource.owner != principal.name:
            return Decision(
                refusal=PermissionDenied(
                    f"{principal.name} may not {action.name}: the session is {resource.owner}'s.",
                    hint="Ask them, or an admin, to end it.",
                    details={"action": action.name, "policy": "own sessions"},
                )
            )
        return Decision(policies=("roles",))


def at_least(role: Role, least: Role) -> bool:
    """Whether a role may whatever another one may."""
    return _ORDER.index(role) >= _ORDER.index(least)
