"""Everything that decides who comes in to a colony with credentials, put together."""

from __future__ import annotations

from coral.colony.access.authorise import Authoriser
from coral.colony.access.guard import ColonyGuard, Limits, Sessions
from coral.colony.access.identities import AgentDirectory, Identities
from coral.colony.access.jwts import ProviderUsers
from coral.colony.access.put_out import PutOutUsers
from coral.colony.access.refusals import AuditedRefusals
from coral.colony.access.tokens import TokenBook
from coral.colony.audit import Audit
from coral.colony.store.database import Database
from coral.config.settings import IdentityProvider
from coral.model.errors import InvalidArgument
from coral.trust.jwks import KeySource
from coral.trust.oidc import Rules


class Door:
    """The way in.

    Attributes:
        tokens: Those of users.
        put_out: Users of the identity provider whose tokens were revoked.
        guard: What the server asks.
    """

    def __init__(
        self,
        *,
        control: Database,
        audit: Audit,
        agents: AgentDirectory,
        limits: Limits,
        authoriser: Authoriser,
        sessions: Sessions,
        provider: IdentityProvider | None,
    ) -> None:
        """Reads nothing yet.

        Args:
            control: The file that keeps the tokens.
            audit: Where every no is recorded.
            agents: Who knows agents and invitations.
            limits: How much anybody may.
            authoriser: What users may.
            sessions: The sessions that requests name.
            provider: The identity provider; None for none.

        Raises:
            InvalidArgument: The provider's address is neither https nor on this host.
        """
        self.tokens = TokenBook(control)
        self.put_out = PutOutUsers(control)
        self.guard = ColonyGuard(
            identities=Identities(tokens=self.tokens, agents=agents, jwts=_users_of(provider), put_out=self.put_out),
            limits=limits,
            authoriser=authoriser,
            sessions=sessions,
            refusals=AuditedRefusals(audit),
        )

    async def open(self) -> None:
        """Reads the tokens, and which do not count; the database is open."""
        await self.tokens.load()
        await self.put_out.load()


def _users_of(provider: IdentityProvider | None) -> ProviderUsers | None:
    if provider is None:
        return None
    try:
        keys = KeySource(issuer=provider.issuer, keys_url=provider.keys_url)
    except InvalidArgument as error:
        raise InvalidArgument(
            f"The identity provider cannot be used: {error.message}", hint="Correct oidc.issuer or oidc.keys_url."
        ) from None
    rules = Rules(
        issuer=provider.issuer,
        audience=provider.audience,
        algorithms=provider.algorithms,
        name_claim=provider.name_claim,
        groups_claim=provider.groups_claim,
    )
    return ProviderUsers(rules=rules, keys=keys, roles=provider.roles)
