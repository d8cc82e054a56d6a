"""Reads files below /proc/PID, and says so when the process vanishes while they are read.

The kernel reports a vanished process in several ways, depending on which file and on when: ENOENT when the directory is gone
already, ESRCH when it was opened before, and an empty read where only the memory is gone. They come out as one error here.
"""

from __future__ import annotations

import os
from pathlib import Path

from coral.model.errors import NotFound, PermissionDenied

PROC = Path("/proc")
_CHUNK_BYTES = 65536


class ProcessGone(NotFound, LookupError):
    """The process is not there any more, or its pid is another's now.

    Attributes:
        pid: Which.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(f"Process {pid} is gone.", hint="Look at the running processes anew.")
        self.pid = pid


def unreadable(pid: int, what: str) -> PermissionDenied:
    """The error for a process that this user may not look into."""
    return PermissionDenied(
        f"Process {pid} may not be read by user {os.geteuid()} ({what}).",
        hint="Run the agent as root, or give it CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH.",
    )


def read_file(pid: int, name: str, *, proc: Path = PROC) -> bytes:
    """The whole of ``/proc/PID/NAME``.

    Raises:
        ProcessGone: The process vanished.
        PermissionDenied: It may not be read.
    """
    try:
        fd = os.open(f"{proc}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessGone(pid) from error
    except PermissionError as error:
        raise unreadable(pid, name) from error
    try:
        chunks = []
        while chunk := os.read(fd, _CHUNK_BYTES):
            chunks.append(chunk)
    except ProcessLookupError as error:
        raise ProcessGone(pid) from error
    except PermissionError as error:
        raise unreadable(pid, name) from error
    finally:
        os.close(fd)
    return b"".join(chunks)


def read_link(pid: int, name: str, *, proc: Path = PROC) -> str:
    """Where the link ``/proc/PID/NAME`` points; bytes that are not UTF-8 come as surrogates.

    Raises:
        ProcessGone: The process vanished, or has no memory any more.
        PermissionDenied: It may not be read.
    """
    try:
        return str((proc / str(pid) / name).readlink())
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessGone(pid) from error
    except PermissionError as error:
        raise unreadable(pid, name) from error
