"""How a daemon says that it is ready, and learns that it should stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping


def stop_event() -> asyncio.Event:
    """An event of the running loop that SIGTERM and SIGINT set."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, event.set)
    return event


def announce_ready(facts: Mapping[str, object], ready_fd: int | None) -> None:
    """Writes ``facts`` as one JSON line to the descriptor that a parent process waits on, and closes it.

    Args:
        facts: What the parent needs, such as the address that was bound.
        ready_fd: The descriptor; None when nobody waits.
    """
    if ready_fd is not None:
        with os.fdopen(ready_fd, "w") as pipe:
            pipe.write(json.dumps(facts) + "\n")
