"""The colony's keys while it runs: its own certificate is renewed before it ends, from the authority that it has anyway."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import structlog

from coral.trust.authority import KeyPair
from coral.trust.colony_keys import SERVER, ColonyKeys, renewal_due_in_s
from coral.trust.secret_files import write_secret

_LOOK_S = 3600.0
_RETRY_S = 60.0
_LEAST_S = 0.2

_log = structlog.get_logger(__name__)


class LiveKeys:
    """Keys of which the certificate changes.

    Attributes:
        keys: Those that count now. Read from any thread.
    """

    def __init__(self, keys: ColonyKeys, folder: Path, *, server_lifetime_s: float, names: Sequence[str] = ()) -> None:
        """Takes keys over.

        Args:
            keys: As loaded.
            folder: The state directory, where a new certificate is kept.
            server_lifetime_s: For how long a new one is good.
            names: Host names and addresses that it has to be for, besides those that it is for.
        """
        self.keys = keys
        self._folder = folder
        self._server_lifetime_s = server_lifetime_s
        self._names = names

    def pair(self) -> KeyPair:
        """What the colony's ports show now."""
        return self.keys.server

    def renew_if_due(self) -> bool:
        """Renews the certificate if that is due or a name is missing, and keeps the new one; returns whether it did.

        Raises:
            OSError: It cannot be kept. The old one goes on.
            InvalidArgument: A name cannot be one.
        """
        due = renewal_due_in_s(self.keys.server.certificate) <= 0
        if not due and self.keys.is_for(self._names):
            return False
        renewed = self.keys.renewed(server_lifetime_s=self._server_lifetime_s, names=self._names)
        write_secret(self._folder / SERVER, renewed.server.certificate)
        self.keys = renewed
        _log.info("the colony's certificate was renewed")
        return True

    async def run(self) -> None:
        """Renews whenever it is due, until cancelled. Connections that are there stay."""
        while True:
            due_in_s = renewal_due_in_s(self.keys.server.certificate)
            await asyncio.sleep(min(_LOOK_S, max(_LEAST_S, due_in_s)))  # clocks are set, hosts sleep: looked at anew
            try:
                await asyncio.to_thread(self.renew_if_due)
            except OSError as error:
                _log.error("the colony's certificate cannot be renewed", error=error.strerror, retry_s=_RETRY_S)
                await asyncio.sleep(_RETRY_S)
