"""The memory of another process, by /proc/PID/mem."""

from __future__ import annotations

import errno
import os

from coral.model.errors import FailedPrecondition
from coral.procfs.files import ProcessGone, unreadable


class MemoryFault(FailedPrecondition):
    """Nothing can be read at an address.

    Attributes:
        pid: Of the process.
        address: The first one that could not be read.
    """

    def __init__(self, pid: int, address: int) -> None:
        super().__init__(
            f"Process {pid} has nothing to read at {address:#x}.", hint="Look at its mappings anew: they may have changed."
        )
        self.pid = pid
        self.address = address


def read_memory(pid: int, address: int, size: int) -> bytes:
    """Exactly ``size`` bytes at an address of a process.

    Code that carries breakpoints is shown with them, which is how attaching and detaching are verified.

    Raises:
        ProcessGone: The process vanished, or its memory did (a zombie).
        MemoryFault: Not all of it is mapped.
        PermissionDenied: It may not be read.
        ValueError: ``size`` is negative.
    """
    if size < 0:
        raise ValueError(f"size is {size}")
    if not 0 <= address < 1 << 63:
        raise MemoryFault(pid, address)
    try:
        fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessGone(pid) from error
    except PermissionError as error:
        raise unreadable(pid, "mem") from error
    chunks = []
    done = 0
    try:
        while done < size:
            try:
                chunk = os.pread(fd, size - done, address + done)
            except OSError as error:
                if error.errno == errno.ESRCH:
                    raise ProcessGone(pid) from error
                raise MemoryFault(pid, address + done) from error
            if not chunk:
                # mem_rw in fs/proc/base.c reads nothing, without an error, once the memory has been given back.
                raise ProcessGone(pid)
            chunks.append(chunk)
            done += len(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks)
