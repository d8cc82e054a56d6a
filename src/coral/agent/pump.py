"""The one thread that drains the rings and hands what it finds to the event loop, in batches."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from coral.agent.clock import WallOffset
from coral.kernel.engine import Drained, Engine
from coral.telemetry.vitals import Trouble

_PAUSE_S = 0.005
"""After a wake-up: a pause makes the next drain a bulk one instead of one wake-up per record (71 ns a record)."""
_BUSY_PAUSE_S = 0.02
"""The same while one drain after the other brings something: each costs some 0.1 ms however little that is."""
_IDLE_S = 0.25
_UNDELIVERED = 8
"""Drains that the event loop has not taken yet, at most. While it is that far behind, records stay in the ring: what finds no
room there the kernel counts, and memory has an end."""

_STUCK_S = 15.0
"""A drain takes milliseconds, and a wait for the event loop ends when that is stuck itself: which others notice."""


class Pump:
    """Drains the engine's rings.

    Args:
        engine: The kernel layer.
        deliver: Called in the loop's thread with what was drained and the offset from CLOCK_BOOTTIME to wall clock in ns.
    """

    def __init__(self, engine: Engine, deliver: Callable[[Drained, int], None]) -> None:
        self._engine = engine
        self._deliver = deliver
        self._wall = WallOffset()
        self._draining = threading.Lock()
        self._room = threading.Semaphore(_UNDELIVERED)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._turned_at = 0.0

    @property
    def trouble(self) -> Trouble | None:
        """Why what the kernel reports is not taken from it; None when it is."""
        if self._thread is None or self._stopped.is_set():
            return None
        if not self._thread.is_alive():
            return Trouble(reason="its thread has ended", stuck=True)
        silent_s = time.monotonic() - self._turned_at
        return Trouble(reason=f"it has not turned for {silent_s:.0f} s", stuck=True) if silent_s > _STUCK_S else None

    async def run(self) -> None:
        """Drains until cancelled."""
        loop = asyncio.get_running_loop()
        self._turned_at = time.monotonic()
        self._thread = thread = threading.Thread(target=self._work, args=(loop,), name="pump", daemon=True)
        thread.start()
        try:
            await asyncio.Event().wait()
        finally:
            self._stopped.set()
            # The thread sees it within _IDLE_S; the loop must not be closed under it.
            await asyncio.to_thread(thread.join)

    async def flush(self) -> None:
        """Returns when everything that was in the rings at the call has been delivered."""
        await asyncio.to_thread(self._drain, asyncio.get_running_loop())
        # The delivery was scheduled before this coroutine's own wake-up; one turn of the loop lets it run first.
        await asyncio.sleep(0)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        found_at = 0.0
        while not self._stopped.is_set():
            self._turned_at = time.monotonic()
            self._engine.wait(_IDLE_S)
            if self._drain(loop):
                before, found_at = found_at, time.monotonic()
                time.sleep(_BUSY_PAUSE_S if found_at - before < 2 * _BUSY_PAUSE_S else _PAUSE_S)

    def _drain(self, loop: asyncio.AbstractEventLoop) -> bool:
        with self._draining:
            found, more = False, True
            while more:
                self._turned_at = time.monotonic()
                while not self._room.acquire(timeout=_IDLE_S):
                    if self._stopped.is_set():
                        return found
                drained = self._engine.drain()
                more = drained.more
                if len(drained.events) or len(drained.control):
                    found = True
                    loop.call_soon_threadsafe(self._hand_over, drained, self._wall.now_ns())
                else:
                    self._room.release()
            return found

    def _hand_over(self, drained: Drained, offset_ns: int) -> None:
        self._room.release()
        self._deliver(drained, offset_ns)
