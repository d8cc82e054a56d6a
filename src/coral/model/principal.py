"""Who asks: what an authenticated caller is to everything behind the door, and the one that is being served now."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from coral.model.errors import Internal


class Role(StrEnum):
    """What a user may do, in the order of how much."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    INVESTIGATOR = "investigator"
    ADMIN = "admin"


class Kind(StrEnum):
    """What a caller is.

    ``LOCAL`` is whoever reaches a server that asks for no credentials: it may do everything, which is what ``--insecure``
    means. ``INVITED`` is a host that shows an invitation: it may join, and nothing else.
    """

    USER = "user"
    AGENT = "agent"
    INVITED = "invited"
    LOCAL = "local"
    COLONY = "colony"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks.

    Attributes:
        name: As the audit log writes it. Of a user what the credential says, of an agent ``agent:ID``; of a local caller what
            it says of itself (``user@host``), else its address.
        kind: What it is.
        roles: Of a user.
        address: Where the connection comes from.
        credential_id: Which credential proved it; never a secret.
        expires_at_ns: When that ends, wall clock; None for not by itself.
        groups: What the issuer of a user's credential says that the user belongs to.
        issued_at_ns: When the credential was issued, as its issuer says; None where it does not.
        scope: The services that the credential is good for, as globs; empty for all.
    """

    name: str
    kind: Kind
    roles: tuple[Role, ...] = ()
    address: str = ""
    credential_id: str = ""
    expires_at_ns: int | None = None
    groups: tuple[str, ...] = ()
    issued_at_ns: int | None = None
    scope: tuple[str, ...] = ()

    @property
    def role(self) -> str:
        """The roles in one word, as the audit log has it; empty where there are none."""
        return ",".join(self.roles)

    def in_scope(self, service_name: str) -> bool:
        """Whether the credential is good for a service."""
        return not self.scope or any(fnmatchcase(service_name, pattern) for pattern in self.scope)


AGENT_PREFIX = "agent:"
"""Before an agent's id in its name; no user's name has a colon, but for those that an issuer of tokens gave."""

_current: ContextVar[Principal] = ContextVar("coral_principal")


def serve_as(principal: Principal) -> None:
    """Says whom the current task serves; for the server, which has a task for each call."""
    _current.set(principal)


def current_principal() -> Principal:
    """Who is served by the current task.

    Raises:
        Internal: It serves nobody: the handler was reached past the guard.
    """
    try:
        return _current.get()
    except LookupError:
        raise Internal("A handler runs for nobody.", hint="It was called past the server's guard.") from None
