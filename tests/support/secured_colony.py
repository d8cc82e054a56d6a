"""A colony with credentials, in this process: TLS, tokens, policies, audit. Its agents' port is there too."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.running_colony import SETTINGS

from coral.client.endpoint import Endpoint
from coral.colony.daemon import Colony
from coral.config.settings import ColonySettings
from coral.trust.authority import COLONY_DNS, KeyPair, new_key, private_pem, request_for
from coral.trust.colony_keys import ColonyKeys, is_initialised
from coral.trust.secret_files import private_folder

_LIFE_NS = 3600 * 1_000_000_000


@dataclass(slots=True)
class SecuredColony:
    """One that runs.

    Attributes:
        colony: The daemon's parts.
        address: Where users reach it.
        ca_pem: By which they know it.
        keys: Its keys.
    """

    colony: Colony
    address: str
    ca_pem: bytes
    keys: ColonyKeys

    @property
    def agent_address(self) -> str:
        """Where agents reach it."""
        return self.colony.agent_address

    def agent_endpoint(self, pair: KeyPair) -> Endpoint:
        """The colony, as an agent with that certificate reaches it."""
        return Endpoint(
            address=self.agent_address, ca_pem=self.ca_pem, certificate=(pair.certificate, pair.key), server_name=COLONY_DNS
        )

    async def join(self, agent_id: str) -> KeyPair:
        """The certificate of an agent that joins, and its key."""
        secured = self.colony._secured
        assert secured is not None
        key = new_key()
        token, _ = await secured.enrolment.invite(by="test", lifetime_s=60)
        certificate = await secured.enrolment.join(token.token_id, agent_id, request_for(key, agent_id))
        return KeyPair(certificate=certificate, key=private_pem(key))

    async def token(self, name: str, role: str, *, services: Sequence[str] = ()) -> str:
        """A token of a user with that name and role, as ``coral token create`` gives it."""
        secured = self.colony._secured
        assert secured is not None
        token, _ = await secured.door.tokens.create(
            name=name, role=role, life_ns=_LIFE_NS, services=services, created_by="test"
        )
        return token.text

    async def user(self, name: str, role: str, *, services: Sequence[str] = ()) -> Endpoint:
        """The colony, as a new user of that name reaches it."""
        return self.endpoint(await self.token(name, role, services=services))

    def endpoint(self, token: str = "") -> Endpoint:
        """The colony, as somebody with that token reaches it."""
        return Endpoint(address=self.address, ca_pem=self.ca_pem, token=token)


@asynccontextmanager
async def secured_colony(state_dir: Path, **settings: Any) -> AsyncIterator[SecuredColony]:
    """Serves over ``state_dir``, whose keys it makes if there are none."""
    if not is_initialised(private_folder(state_dir)):
        made = ColonyKeys.create("test", ["127.0.0.1", "localhost"], server_lifetime_s=3600)
        made.save_all_but_ca(state_dir)
        made.save_ca(state_dir)
    keys = ColonyKeys.load(state_dir)
    chosen = ColonySettings(listen="127.0.0.1:0", agent_listen="127.0.0.1:0", state_dir=state_dir, **{**SETTINGS, **settings})
    colony = Colony(chosen, keys=keys, grace_s=1.0)
    address = await colony.start()
    stop = asyncio.Event()
    running = asyncio.create_task(colony.run(stop))
    try:
        yield SecuredColony(colony=colony, address=address, ca_pem=keys.authority.pair.certificate, keys=keys)
    finally:
        stop.set()
        await running


@contextmanager
def secured_colony_in_thread(
    state_dir: Path, *, users: dict[str, str], **settings: Any
) -> Iterator[tuple[SecuredColony, dict[str, str]]]:
    """The same in a thread of its own, for tests that run a command line in the main one.

    Args:
        state_dir: As for ``secured_colony``.
        users: Name to role.
        settings: Of the colony.

    Yields:
        The colony, and each user's token.
    """
    ready: list[tuple[SecuredColony, dict[str, str]]] = []
    failure: list[BaseException] = []
    started, end = threading.Event(), threading.Event()

    async def serve() -> None:
        async with secured_colony(state_dir, **settings) as found:
            ready.append((found, {name: await found.token(name, role) for name, role in users.items()}))
            started.set()
            await asyncio.to_thread(end.wait)

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001  (it is the test that has to fail)
            failure.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    started.wait(20)
    if not ready:
        raise failure[0] if failure else TimeoutError("the colony did not start")
    try:
        yield ready[0]
    finally:
        end.set()
        thread.join(20)
    if failure:
        raise failure[0]
