"""Users whom an identity provider names: its token becomes a principal, its groups become roles."""

from __future__ import annotations

from collections.abc import Mapping

from coral.colony.access.identities import JWT_PREFIX
from coral.model.principal import Kind, Principal, Role
from coral.trust.jwks import KeySource
from coral.trust.oidc import Rules, verify


class ProviderUsers:
    """Those of one identity provider.

    Args:
        rules: What a token has to be.
        keys: The provider's.
        roles: By group; a user has those of all their groups.
    """

    def __init__(self, *, rules: Rules, keys: KeySource, roles: Mapping[str, Role]) -> None:
        self._rules = rules
        self._keys = keys
        self._roles = roles

    async def identify(self, text: str, address: str) -> Principal:
        """The user that a token names.

        Raises:
            Unauthenticated: It does not count.
            Unavailable: The provider's keys cannot be had.
        """
        claims = await verify(text, self._rules, self._keys.find)
        held = {self._roles[group] for group in claims.groups if group in self._roles}
        return Principal(
            name=JWT_PREFIX + claims.name,
            kind=Kind.USER,
            roles=tuple(role for role in Role if role in held),
            address=address,
            credential_id=f"{JWT_PREFIX}{claims.subject}",
            issued_at_ns=claims.issued_at_ns,
            expires_at_ns=claims.expires_at_ns,
            groups=claims.groups,
        )
