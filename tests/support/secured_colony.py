"""A colony with keys of its own, in this process, over real files: real TLS on both ports, real tokens, real policies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coral.client.access import AccessClient
from coral.client.colony import ColonyClient
from coral.client.endpoint import Endpoint
from coral.colony.daemon import Colony
from coral.colony.store.database import Database
from coral.colony.store.schema import CONTROL
from coral.colony.store.tokens import insert_token, record_of
from coral.config.settings import ColonySettings
from coral.model.principal import Role
from coral.trust.authority import COLONY_DNS, KeyPair, new_key, private_pem, request_for
from coral.trust.colony_keys import ColonyKeys
from coral.trust.secret_files import private_folder
from coral.trust.tokens import TokenKind, new_token
from support.running_colony import SETTINGS

ADMIN = "admin"
LIMITS = {"calls_per_s": 100_000, "calls_burst": 100_000, "refusals_per_s": 100_000}
"""So high that only tests of the limits meet them."""


@dataclass(frozen=True, kw_only=True)
class SecuredColony:
    """Where it is, and what it takes to get in.

    Attributes:
        address: HOST:PORT for users.
        agent_address: HOST:PORT for agents.
        keys: Its keys.
        admin: A token of an admin.
        colony: The colony itself.
    """

    address: str
    agent_address: str
    keys: ColonyKeys
    admin: str
    colony: Colony

    @property
    def ca_pem(self) -> bytes:
        """The certificate that clients know it by."""
        return self.keys.authority.pair.certificate

    def endpoint(self, token: str = "") -> Endpoint:
        """For a user with a token; without one, for nobody."""
        return Endpoint(address=self.address, ca_pem=self.ca_pem, token=token)

    def agent_endpoint(self, pair: KeyPair) -> Endpoint:
        """For an agent with a certificate."""
        return Endpoint(
            address=self.agent_address, ca_pem=self.ca_pem, certificate=(pair.certificate, pair.key), server_name=COLONY_DNS
        )

    async def token(self, name: str, role: str, *, life_ns: int | None = None, services: Sequence[str] = ()) -> str:
        """A token for a user, made as an admin makes it."""
        async with ColonyClient(self.endpoint(self.admin)) as client:
            made = await AccessClient(client).create_token(name, role=role, life_ns=life_ns, services=services)
        return made.token

    async def join(self, agent_id: str) -> KeyPair:
        """The certificate of an agent that joined."""
        secured = self.colony._secured
        assert secured is not None
        key = new_key()
        token, _ = await secured.enrolment.invite(by=ADMIN, lifetime_s=60)
        certificate = await secured.enrolment.join(token.token_id, agent_id, request_for(key, agent_id))
        return KeyPair(certificate=certificate, key=private_pem(key))


@asynccontextmanager
async def secured_colony(state_dir: Path, **settings: Any) -> AsyncIterator[SecuredColony]:
    """Serves over ``state_dir``, which gets keys and an admin's token."""
    keys = ColonyKeys.create("01TEST", ["localhost", "127.0.0.1"], server_lifetime_s=86_400)
    keys.save(private_folder(state_dir))
    admin = await _admin(state_dir)
    listen = ColonySettings(listen="127.0.0.1:0", state_dir=state_dir, **{**SETTINGS, **LIMITS, **settings})
    colony = Colony(listen, keys=keys, grace_s=1.0)
    address = await colony.start()
    stop = asyncio.Event()
    running = asyncio.create_task(colony.run(stop))
    try:
        yield SecuredColony(address=address, agent_address=colony.agent_address, keys=keys, admin=admin, colony=colony)
    finally:
        stop.set()
        await running


async def _admin(state_dir: Path) -> str:
    database = Database(state_dir / "control.duckdb", CONTROL)
    await database.open()
    token = new_token(TokenKind.USER)
    record = record_of(token, name=ADMIN, role=Role.ADMIN, created_at_ns=1_700_000_000_000_000_000, created_by="init")
    await database.write(lambda connection: insert_token(connection, record))
    await database.close()
    return token.text
