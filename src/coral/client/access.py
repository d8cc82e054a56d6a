"""The colony's calls about users and their tokens."""

from __future__ import annotations

from collections.abc import Sequence

from coral.client.colony import ColonyClient
from coral.wire._generated.colony.v1 import access_pb2, access_pb2_grpc
from coral.wire.convert import duration


class AccessClient:
    """Asks a colony who the caller is, and makes and ends tokens; over the connection of a ``ColonyClient``.

    Every method raises what that one's raise.
    """

    def __init__(self, colony: ColonyClient) -> None:
        self._colony = colony
        self._stub = access_pb2_grpc.AccessServiceStub(colony.channel)

    async def who_am_i(self) -> access_pb2.WhoAmIResponse:
        """Whom the colony takes the caller for."""
        response: access_pb2.WhoAmIResponse = await self._colony.call(self._stub.WhoAmI, access_pb2.WhoAmIRequest())
        return response

    async def create_token(
        self, name: str, *, role: str, life_ns: int | None = None, services: Sequence[str] = ()
    ) -> access_pb2.CreateTokenResponse:
        """A new token.

        Args:
            name: Of the user that it stands for.
            role: What its holder may.
            life_ns: For how long it counts; None for what the colony gives.
            services: Globs over the services that it is good for; empty for all.
        """
        request = access_pb2.CreateTokenRequest(
            name=name, role=role, services=services, expires_in=None if life_ns is None else duration(life_ns)
        )
        response: access_pb2.CreateTokenResponse = await self._colony.call(self._stub.CreateToken, request)
        return response

    async def tokens(self, *, ended: bool = False) -> list[access_pb2.AccessToken]:
        """Those that count, newest first; with ``ended`` also the others."""
        response = await self._colony.call(self._stub.ListTokens, access_pb2.ListTokensRequest(ended=ended))
        return list(response.tokens)

    async def revoke_token(self, name: str) -> access_pb2.AccessToken:
        """Ends the token of a user."""
        response = await self._colony.call(self._stub.RevokeToken, access_pb2.RevokeTokenRequest(name=name))
        revoked: access_pb2.AccessToken = response.revoked
        return revoked
