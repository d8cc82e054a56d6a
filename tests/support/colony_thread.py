"""Runs the synthetic colony in a thread of its own, for tests that run a command line in the main one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from support.synthetic_colony import SyntheticColony


@contextmanager
def colony_in_thread() -> Iterator[SyntheticColony]:
    """A colony that serves until the context ends; its state may be set from the test's thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(coroutine: object) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, loop).result(10)  # type: ignore[arg-type]

    colony = SyntheticColony()
    run(colony.start("127.0.0.1:0"))
    try:
        yield colony
    finally:
        run(colony.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
