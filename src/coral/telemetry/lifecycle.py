"""How a daemon says that it is ready, and learns that it should stop."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
from collections.abc import Mapping

_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h


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


def die_with_parent() -> None:
    """Has the kernel send SIGTERM to this process when the process that started it is gone, however that ended.

    For a daemon that is given ``--ready-fd``: nobody else would stop it. A parent that died before this call is noticed when
    the ready line is written to its closed pipe.

    Raises:
        OSError: The kernel refuses it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_PDEATHSIG): {os.strerror(number)}")
