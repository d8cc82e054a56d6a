"""Whether the parts of a daemon work: asked every second, told to who asks for its health and to the service manager.

A part is *failing* when what it is for cannot be done now, such as writing to a full disk: then the daemon says that it does
not serve, and goes on, since a restart changes nothing. It is *stuck* when it does not move: then the daemon also stops
telling the service manager that it lives, which ends it and starts it anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from coral.telemetry.service_manager import ServiceManager
from coral.telemetry.timings import Timings

LOOK_S = 1.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What is wrong with a part.

    Attributes:
        reason: In a few words.
        stuck: Whether it does not even move.
    """

    reason: str
    stuck: bool = False


Look = Callable[[], Trouble | None]
"""Looks at a part, at once and without waiting for anything; None when it works."""


class Vitals:
    """The parts of one daemon.

    Args:
        parts: What to look at, by name.
        report: Called when it begins or ceases to serve, with whether it does.
        manager: Who started the daemon.
        look_s: How often the parts are looked at.
    """

    def __init__(
        self,
        parts: Mapping[str, Look],
        *,
        report: Callable[[bool], Awaitable[None]],
        manager: ServiceManager | None = None,
        look_s: float = LOOK_S,
    ) -> None:
        self._parts = parts
        self._report = report
        self._manager = manager or ServiceManager()
        self._look_s = look_s
        self.troubles: dict[str, Trouble] = {}
        self.lag = Timings()
        """By how much later than it was due the event loop came to each look."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what is looked at."""
        return tuple(self._parts)

    async def run(self) -> None:
        """Looks until cancelled."""
        told_at = late_s = 0.0
        pace_s = min(self._look_s, self._manager.watchdog_s / 4 or self._look_s)
        while True:
            if late_s < self._look_s:  # else everything stood still, as in a SIGSTOP, and nothing has had time to move since
                await self.look()
            now = time.monotonic()
            if now - told_at >= self._manager.watchdog_s / 4 and not any(each.stuck for each in self.troubles.values()):
                told_at = now
                self._manager.alive(self.status)
            await asyncio.sleep(pace_s)
            late_s = max(0.0, time.monotonic() - now - pace_s)
            self.lag.note(late_s)

    async def look(self) -> None:
        """Looks at every part once, and tells what changed."""
        found = {name: trouble for name, look in self._parts.items() if (trouble := look()) is not None}
        before, self.troubles = self.troubles, found
        for name in found.keys() - before.keys():
            _log.error("does not work", part=name, reason=found[name].reason, stuck=found[name].stuck)
        for name in before.keys() - found.keys():
            _log.info("works again", part=name)
        if bool(found) != bool(before):
            await self._report(not found)

    @property
    def status(self) -> str:
        """How it is, in a sentence."""
        return "; ".join(f"{name}: {trouble.reason}" for name, trouble in self.troubles.items()) or "Works."
