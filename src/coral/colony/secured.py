"""What a colony with credentials has beside one without: its keys, the hosts that belong to it, and its door."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc

from coral.colony.access.authorise import Authoriser
from coral.colony.access.door import Door
from coral.colony.access.guard import Sessions
from coral.colony.access.limits import call_limits
from coral.colony.audit import Audit
from coral.colony.dialling import MutualDialling
from coral.colony.enrolment import Enrolment
from coral.colony.rotation import LiveKeys
from coral.colony.store.database import Database
from coral.config.settings import ColonySettings
from coral.trust.colony_keys import ColonyKeys
from coral.wire.address import split_address
from coral.wire.tls import server_credentials

_AGENT_PORT = 8083


class Secured:
    """The parts that need keys.

    Attributes:
        keys: Those of the colony, as they are now.
        enrolment: Which hosts belong to it.
        dialling: How it reaches them.
        door: Who comes in.
        agent_address: Where it serves them, once it does.
    """

    def __init__(
        self,
        settings: ColonySettings,
        keys: ColonyKeys,
        *,
        control: Database,
        audit: Audit,
        authoriser: Authoriser,
        sessions: Sessions,
    ) -> None:
        """Reads nothing yet.

        Args:
            settings: Of the colony.
            keys: Its keys.
            control: The file that keeps invitations, certificates and tokens.
            audit: Where every no is recorded.
            authoriser: What users may.
            sessions: The sessions that requests name.

        Raises:
            InvalidArgument: The identity provider cannot be used.
        """
        self._settings = settings
        self.keys = LiveKeys(
            keys, Path(settings.state_dir), server_lifetime_s=settings.server_certificate_s, names=settings.server_names
        )
        self.enrolment = Enrolment(control, keys.authority, agent_lifetime_s=settings.agent_certificate_s)
        self.dialling = MutualDialling(lambda: self.keys.keys)
        self.door = Door(
            control=control,
            audit=audit,
            agents=self.enrolment,
            limits=call_limits(settings),
            authoriser=authoriser,
            sessions=sessions,
            provider=settings.oidc,
        )
        self.agent_address = ""

    async def open(self) -> None:
        """Reads what is kept, and renews the certificate if that is due; the database is open.

        Raises:
            OSError: A new certificate cannot be kept.
        """
        await asyncio.to_thread(self.keys.renew_if_due)
        await self.enrolment.load()
        await self.door.open()

    def of_users(self) -> grpc.ServerCredentials:
        """TLS for the port that users come to, with tokens."""
        return server_credentials(self.keys.pair)

    def of_agents(self) -> grpc.ServerCredentials:
        """Mutual TLS for the port that agents come to, with certificates."""
        return server_credentials(self.keys.pair, clients_of=self.keys.keys.authority.pair.certificate)

    def agent_listen(self) -> str:
        """Where agents are to be served: as set, else a port of its own on the host of the users'."""
        if self._settings.agent_listen:
            return self._settings.agent_listen
        host, _, port = self._settings.listen.rpartition(":")
        return f"{host}:{_AGENT_PORT if int(port) else 0}"

    def agent_port(self) -> int:
        """The port where it serves agents."""
        return split_address(self.agent_address)[1]
