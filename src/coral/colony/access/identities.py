"""Who calls: a user by a bearer token, an agent by its certificate, a host that wants to join by its invitation."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from coral.colony.access.put_out import PutOutUsers
from coral.colony.access.tokens import TokenBook
from coral.model.errors import InvalidArgument, Unauthenticated
from coral.model.principal import AGENT_PREFIX, Kind, Principal
from coral.trust.authority import Holder, holder_of
from coral.trust.tokens import TokenKind
from coral.wire.guard import Call
from coral.wire.metadata import AUTHORIZATION_KEY

_MAX_BEARER = 8192
_MAX_CERTIFICATE_BYTES = 16 << 10
_REMEMBERED = 16_384
"""Certificates that are not read anew for each call: of a large fleet, some KiB each."""
_SIGN_IN = "Sign in with `coral login`, or give a token in CORAL_TOKEN."


class AgentDirectory(Protocol):
    """What is known of agents and invitations."""

    def check_agent(self, holder: Holder) -> None:
        """Whether the certificate of an agent counts.

        Raises:
            Unauthenticated: It has expired or was revoked, or the agent never joined.
        """
        ...

    def check_invitation(self, text: str) -> str:
        """The id of the invitation that a text is.

        Raises:
            Unauthenticated: It is none, or has ended.
        """
        ...


class Jwts(Protocol):
    """Verifies what an identity provider issued."""

    async def identify(self, text: str, address: str) -> Principal:
        """The user that a JWT names.

        Raises:
            Unauthenticated: It is none, or does not count here.
            Unavailable: The issuer's keys cannot be had.
        """
        ...


class Identities:
    """Finds out who calls."""

    def __init__(
        self,
        *,
        tokens: TokenBook,
        agents: AgentDirectory,
        jwts: Jwts | None = None,
        put_out: PutOutUsers | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Args: ``jwts`` is None where no identity provider is configured, ``put_out`` knows whose JWTs were revoked;
        ``clock_ns`` is the wall clock.
        """
        self._tokens = tokens
        self._agents = agents
        self._jwts = jwts
        self._put_out = put_out
        self._clock_ns = clock_ns
        self._holders: OrderedDict[bytes, Holder] = OrderedDict()

    async def identify(self, call: Call) -> Principal:
        """The caller, from what it shows.

        Raises:
            Unauthenticated: It shows nothing, more than one thing, or what does not count.
            Unavailable: The keys of the identity provider cannot be had.
        """
        shown = call.values(AUTHORIZATION_KEY)
        if not call.secure:
            raise Unauthenticated("This connection is not encrypted.", hint="Give the colony's ca.pem with --ca.")
        if len(shown) + (call.certificate is not None) > 1:
            raise Unauthenticated("More than one credential was shown.", hint="Show a certificate or a token, and one of it.")
        if call.certificate is not None:
            return self._agent(call.certificate, call.address)
        if not shown:
            raise Unauthenticated("No credential was shown.", hint=_SIGN_IN)
        text = bearer(shown[0])
        if text.startswith(f"coral_{TokenKind.INVITE}_"):
            invite_id = self._agents.check_invitation(text)
            return Principal(name=f"invite:{invite_id}", kind=Kind.INVITED, address=call.address, credential_id=invite_id)
        if self._jwts is not None and not text.startswith("coral_"):
            principal = await self._jwts.identify(text, call.address)
            if self._put_out is not None:
                self._put_out.check(principal)
            return principal
        return self._tokens.identify(text, call.address)

    async def recheck(self, principal: Principal, call: Call) -> None:
        """Whether a caller that was let in still counts.

        Raises:
            Unauthenticated: Its credential has expired, or was revoked.
        """
        if principal.kind is Kind.AGENT and call.certificate is not None:
            self._agent(call.certificate, call.address)
        elif principal.kind is Kind.USER and not principal.name.startswith(JWT_PREFIX):
            self._tokens.recheck(principal.credential_id)
        elif principal.kind is Kind.USER and self._put_out is not None:
            self._put_out.check(principal)
        if principal.expires_at_ns is not None and principal.expires_at_ns <= self._clock_ns():
            raise Unauthenticated(f"The credential of {principal.name} has expired.", hint=_SIGN_IN)

    def _agent(self, certificate: bytes, address: str) -> Principal:
        holder = self._holders.get(certificate)
        if holder is None:
            holder = self._holders[certificate] = _holder(certificate)
            while len(self._holders) > _REMEMBERED:
                self._holders.popitem(last=False)
        self._agents.check_agent(holder)
        return Principal(
            name=AGENT_PREFIX + holder.id,
            kind=Kind.AGENT,
            address=address,
            credential_id=holder.serial,
            expires_at_ns=holder.expires_at_ns,
        )


JWT_PREFIX = "oidc:"
"""Before the name of a user whom an identity provider names, so that none of its names can be that of a token or an agent."""


def bearer(value: str | bytes) -> str:
    """The token of an ``authorization`` header (RFC 6750, section 2.1).

    Raises:
        Unauthenticated: It has none. The message does not repeat it.
    """
    text = value if isinstance(value, str) else ""
    scheme, _, token = text.partition(" ")
    if scheme.lower() != "bearer" or not token or len(token) > _MAX_BEARER or not token.isascii():
        raise Unauthenticated("The authorization is no bearer token.", hint="It is `Bearer TOKEN`.")
    return token.strip()


def _holder(certificate: bytes) -> Holder:
    if len(certificate) > _MAX_CERTIFICATE_BYTES:
        raise Unauthenticated("The certificate is too large.", hint="Use the one that `coral agent start --join` got.")
    try:
        holder = holder_of(certificate)
    except (InvalidArgument, UnicodeDecodeError) as error:
        raise Unauthenticated(f"The certificate does not count: {error}") from None
    if holder.kind != "agent":
        raise Unauthenticated("The certificate is not an agent's.", hint="Use the one that `coral agent start --join` got.")
    return holder
