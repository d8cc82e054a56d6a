"""Whose question is answered next, when there are more than can be answered at a time.

Files take turns, not questions: one that is slow to read, or asked for a hundred times, delays another by one question.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from coral.model.errors import ResourceExhausted


class Turns:
    """A queue per key, and the keys in rotation.

    Args:
        at_once: How many may have their turn at a time; of one key, one.
        waiting: How many may wait; more are refused.
        waiting_for_one: How many may wait for one key.
    """

    def __init__(self, *, at_once: int, waiting: int, waiting_for_one: int) -> None:
        self._at_once = at_once
        self._waiting = waiting
        self._waiting_for_one = waiting_for_one
        self._queues: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()
        self._running: set[Hashable] = set()

    @asynccontextmanager
    async def turn(self, key: Hashable, name: str) -> AsyncIterator[None]:
        """Waits for a turn, and has it inside of the context.

        Args:
            key: Of the file.
            name: Of the file, for messages.

        Raises:
            ResourceExhausted: Too many wait already.
        """
        queue = self._queues.setdefault(key, deque())
        if len(queue) >= self._waiting_for_one or sum(map(len, self._queues.values())) >= self._waiting:
            self._forget(key)
            raise ResourceExhausted(f"Too many questions about {name} and other files wait already.", hint="Try again soon.")
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(mine)
        self._next()
        try:
            await mine
        except asyncio.CancelledError:
            # A turn that came in the same moment is passed on; a place in the queue is skipped when its turn comes.
            if not mine.cancelled():
                self._end(key)
            raise
        try:
            yield
        finally:
            self._end(key)

    def _end(self, key: Hashable) -> None:
        self._running.remove(key)
        self._next()

    def _next(self) -> None:
        for key in list(self._queues):
            if len(self._running) >= self._at_once:
                return
            queue = self._queues[key]
            while queue and queue[0].cancelled():
                queue.popleft()
            if queue and key not in self._running:
                self._running.add(key)
                queue.popleft().set_result(None)
                self._queues.move_to_end(key)
            self._forget(key)

    def _forget(self, key: Hashable) -> None:
        if not self._queues[key]:
            del self._queues[key]
