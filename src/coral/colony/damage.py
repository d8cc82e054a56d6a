"""Says what became of an events file that had to be set aside: in the audit log, in the sessions, and by health."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from coral.colony.audit import Audit
from coral.colony.store import control
from coral.colony.store.database import Database
from coral.colony.store.opening import SetAside
from coral.model.errors import Unavailable

_log = structlog.get_logger(__name__)
_LOOK_S = 1.0
WHY = "damage"


class Damage:
    """Looks after it. Of the control file the audit log, which opens with it, has told already."""

    def __init__(self, *, control_db: Database, events_db: Database, audit: Audit) -> None:
        self._control = control_db
        self._events = events_db
        self._audit = audit
        self._told = 0

    @property
    def whole(self) -> bool:
        """Whether no file had to be set aside since the colony started."""
        return not self._control.set_aside and not self._events.set_aside

    async def tell(self) -> None:
        """Tells what was not told yet.

        Raises:
            Unavailable: It cannot be written now.
        """
        for aside in self._events.set_aside[self._told :]:
            await self._mark(aside)
            await self._audit.set_aside(aside)
            self._told += 1

    async def run(self, report: Callable[[bool], Awaitable[None]]) -> None:
        """Tells what comes up, until cancelled.

        Args:
            report: Called with whether all files are whole, at first and when that changes.
        """
        reported: bool | None = None
        while True:
            try:
                await self.tell()
            except Unavailable as error:
                _log.warning("what became of a database is not told yet", error=str(error))
            if self.whole != reported:
                reported = self.whole
                await report(reported)
            await asyncio.sleep(_LOOK_S)

    async def _mark(self, aside: SetAside) -> None:
        """Has the sessions whose events were in a file say that they are gone; without its log alone most are there."""
        if aside.file == self._events.name:
            await self._control.write(
                lambda connection: control.note_events_removed(connection, None, when_ns=aside.at_ns, why=WHY)
            )
