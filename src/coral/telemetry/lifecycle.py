"""How a daemon says that it is ready, and learns that it should stop."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import resource
import signal
from collections.abc import Mapping

from coral.telemetry.service_manager import ServiceManager

_OWN_DESCRIPTORS = 512
"""What a daemon needs beside connections: databases, files that it reads, channels of its own."""
_FEWEST = 16
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4  # include/uapi/linux/prctl.h


def stop_event() -> asyncio.Event:
    """An event of the running loop that SIGTERM and SIGINT set."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, event.set)
    return event


def announce_ready(facts: Mapping[str, object], ready_fd: int | None, manager: ServiceManager | None = None) -> None:
    """Writes ``facts`` as one JSON line to the descriptor that a parent process waits on, and closes it; tells systemd.

    Args:
        facts: What the parent needs, such as the address that was bound.
        ready_fd: The descriptor; None when nobody waits.
        manager: The service manager; None for the one of the environment.
    """
    if ready_fd is not None:
        with os.fdopen(ready_fd, "w") as pipe:
            pipe.write(json.dumps(facts) + "\n")
    (manager or ServiceManager.of()).ready()


def keep_to_itself() -> None:
    """Has what this process writes, and what is in its memory, be nobody else's: for daemons, first of all.

    New files have mode 0600 and new folders 0700, whoever creates them, DuckDB included. There are no core dumps: not to a
    file, and, as the kernel hands one to a program of ``core_pattern`` whatever the limit is, not there either. The last also
    keeps other processes of the same user from reading its memory (ptrace(2), "Ptrace access mode checking").

    Raises:
        OSError: The kernel refuses it.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl("PR_SET_DUMPABLE", _PR_SET_DUMPABLE, 0)


def room_for(connections: int) -> int:
    """Raises the soft limit of descriptors as far as the hard one allows, so that connections do not use up the daemon's own.

    Args:
        connections: How many are wanted.

    Returns:
        How many there is room for; a few in any case.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OWN_DESCRIPTORS
    if soft == resource.RLIM_INFINITY:
        return connections
    raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if raised > soft:
        soft = raised
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(connections, max(_FEWEST, soft - _OWN_DESCRIPTORS))


def die_with_parent() -> None:
    """Has the kernel send SIGTERM to this process when the process that started it is gone, however that ended.

    For a daemon that is given ``--ready-fd``: nobody else would stop it. A parent that died before this call is noticed when
    the ready line is written to its closed pipe.

    Raises:
        OSError: The kernel refuses it.
    """
    _prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(name: str, option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({name}): {os.strerror(number)}")
