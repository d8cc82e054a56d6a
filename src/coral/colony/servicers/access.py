"""``coral.colony.v1.AccessService``: who a caller is, and the tokens of users."""

# ruff: noqa: N802  (the methods are named as the wire names them)

from __future__ import annotations

from typing import Any

from coral.colony.access.identities import JWT_PREFIX
from coral.colony.access.put_out import PutOut, PutOutUsers
from coral.colony.access.tokens import DEFAULT_LIFE_NS, TokenBook
from coral.colony.audit import Audit
from coral.colony.store.tokens import TokenRecord
from coral.model.errors import CoralError, FailedPrecondition, Internal
from coral.model.principal import current_principal
from coral.model.text import format_duration
from coral.wire._generated.colony.v1 import access_pb2, access_pb2_grpc
from coral.wire.convert import duration_ns, timestamp

_MAX_LISTED = 10_000


class AccessServicer(access_pb2_grpc.AccessServiceServicer):
    """Answers ``coral login`` and ``coral token``.

    Args:
        tokens: Those of the colony's users; None where nobody is asked for one.
        put_out: Users of an identity provider whose tokens were revoked; None likewise.
        audit: Where it is written down.
    """

    def __init__(self, *, tokens: TokenBook | None, put_out: PutOutUsers | None, audit: Audit) -> None:
        self._tokens = tokens
        self._put_out = put_out
        self._audit = audit

    async def WhoAmI(self, request: access_pb2.WhoAmIRequest, context: Any) -> access_pb2.WhoAmIResponse:
        """The caller, as the guard found it."""
        who = current_principal()
        async with self._audit.noting(self._audit.entry(who, "WhoAmI")):
            return access_pb2.WhoAmIResponse(
                name=who.name,
                kind=who.kind,
                roles=who.roles,
                groups=who.groups,
                services=who.scope,
                credential_id=who.credential_id,
                expires_at=timestamp(who.expires_at_ns) if who.expires_at_ns is not None else None,
                address=who.address,
            )

    async def CreateToken(self, request: access_pb2.CreateTokenRequest, context: Any) -> access_pb2.CreateTokenResponse:
        """Makes one; the record of it is written first."""
        who = current_principal()
        life_ns = duration_ns(request.expires_in) if request.HasField("expires_in") else DEFAULT_LIFE_NS
        services = ", ".join(request.services) or "all services"
        what = f"for {request.name}: {request.role}, {services}, for {format_duration(life_ns)}"
        entry = self._audit.entry(who, "CreateToken", reason=what)
        await self._audit.before(entry)
        try:
            token, record = await self._book().create(
                name=request.name,
                role=request.role,
                life_ns=life_ns,
                services=request.services,
                created_by=who.name,
            )
        except CoralError as error:
            self._audit.outcome(entry, error)
            raise
        self._audit.outcome(entry)
        return access_pb2.CreateTokenResponse(token=token.text, described=self._message(record))

    async def ListTokens(self, request: access_pb2.ListTokensRequest, context: Any) -> access_pb2.ListTokensResponse:
        """Newest first; without their secrets, which nobody has."""
        async with self._audit.noting(self._audit.entry(current_principal(), "ListTokens")):
            records = self._book().every() if request.ended else self._book().active()
            return access_pb2.ListTokensResponse(tokens=[self._message(record) for record in records[:_MAX_LISTED]])

    async def RevokeToken(self, request: access_pb2.RevokeTokenRequest, context: Any) -> access_pb2.RevokeTokenResponse:
        """Ends one at once; of a user of the identity provider, all that were issued until now."""
        entry = self._audit.entry(current_principal(), "RevokeToken", reason=request.name)
        await self._audit.before(entry)
        try:
            if request.name.startswith(JWT_PREFIX):
                message = _put_out(await self._users().put_out(request.name))
            else:
                message = self._message(await self._book().revoke(request.name))
        except CoralError as error:
            self._audit.outcome(entry, error)
            raise
        self._audit.outcome(entry)
        return access_pb2.RevokeTokenResponse(revoked=message)

    def _users(self) -> PutOutUsers:
        self._book()
        if self._put_out is None:
            raise Internal("There are tokens and nothing that knows whose were revoked.")
        return self._put_out

    def _book(self) -> TokenBook:
        if self._tokens is None:
            raise FailedPrecondition(
                "This colony asks nobody for a token.",
                hint="Give it keys with `coral colony init`, and leave --insecure out.",
            )
        return self._tokens

    def _message(self, record: TokenRecord) -> access_pb2.AccessToken:
        used_at_ns = self._book().used_at_ns(record.token_id)
        return access_pb2.AccessToken(
            token_id=record.token_id,
            name=record.name,
            role=record.role,
            services=record.services,
            created_at=timestamp(record.created_at_ns),
            created_by=record.created_by,
            expires_at=timestamp(record.expires_at_ns) if record.expires_at_ns is not None else None,
            revoked_at=timestamp(record.revoked_at_ns) if record.revoked_at_ns is not None else None,
            last_used_at=timestamp(used_at_ns) if used_at_ns is not None else None,
            status=self._book().status(record),
        )


def _put_out(user: PutOut) -> access_pb2.AccessToken:
    """What stands for the tokens of a user of the identity provider, of which none is known here."""
    return access_pb2.AccessToken(
        name=user.name, revoked_at=timestamp(user.at_ns), expires_at=timestamp(user.until_ns), status="revoked"
    )
