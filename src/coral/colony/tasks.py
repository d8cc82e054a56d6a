"""Tasks that outlive the call that began them, such as following a session; cancelled with the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

from coral.model.errors import CoralError

T = TypeVar("T")
_log = structlog.get_logger(__name__)


class Tasks:
    """A set of running tasks. One that fails does not take the others with it; its failure is logged."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Starts ``work``."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def stop(self) -> None:
        """Cancels all and waits for them."""
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        # A CoralError is an answer to whoever awaits the task.
        if error is not None and not isinstance(error, CoralError):
            _log.error("task failed", task=task.get_coro(), exc_info=error)
