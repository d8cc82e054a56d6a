"""From what was committed to those who follow a session. A follower that is slow reads the database instead: nothing that
happens here makes the ingest wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

import pyarrow as pa

_RECENT_ROWS = 50_000
_RECENT_COMMITS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What one commit added to one collector.

    Attributes:
        collector_id: Which.
        after: The sequence reached before it.
        upto: The sequence reached with it.
        events: The events stored, of ``SCHEMA``.
    """

    collector_id: str
    after: int
    upto: int
    events: pa.Table


class Feed:
    """The last commits of one session, and a bell that rings for each."""

    def __init__(self) -> None:
        self._recent: deque[Committed] = deque()
        self._rows = 0
        self._bell = asyncio.Event()
        self.version = 0
        self.closed = False

    def publish(self, committed: Committed | None) -> None:
        """Announces a commit, or (None) that something else of the session changed."""
        if committed is not None and committed.upto > committed.after:
            self._recent.append(committed)
            self._rows += committed.events.num_rows
            while len(self._recent) > _RECENT_COMMITS or (self._rows > _RECENT_ROWS and len(self._recent) > 1):
                self._rows -= self._recent.popleft().events.num_rows
        self._ring()

    def close(self) -> None:
        """Announces that nothing follows."""
        self.closed = True
        self._ring()

    async def changed(self, seen_version: int) -> int:
        """Waits until something happened after ``seen_version``; returns the version now."""
        while self.version == seen_version and not self.closed:
            await self._bell.wait()
        return self.version

    def after(self, collector_id: str, sequence: int) -> Committed | None:
        """The recent commit that goes on from ``sequence``; None when it is no longer (or not yet) here."""
        for committed in self._recent:
            if committed.collector_id == collector_id and committed.after <= sequence < committed.upto:
                return committed
        return None

    def _ring(self) -> None:
        self.version += 1
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()
