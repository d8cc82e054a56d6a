"""The memory of another process, by /proc/PID/mem."""

from __future__ import annotations

import errno
import os
from types import TracebackType
from typing import Self

from coral.model.errors import FailedPrecondition
from coral.procfs.files import ProcessGone, unreadable
from coral.procfs.threads import memory_task


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


class Memory:
    """The memory of a process, open for reading; a context manager.

    Code that carries breakpoints is shown with them, which is how attaching and detaching are verified.

    Args:
        pid: Of the process.

    Raises:
        ProcessGone: It vanished.
        PermissionDenied: It may not be read.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        try:
            self._fd = os.open(f"/proc/{memory_task(pid)}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessGone(pid) from error
        except PermissionError as error:
            raise unreadable(pid, "mem") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._fd)

    def read(self, address: int, size: int) -> bytes:
        """Exactly ``size`` bytes at an address.

        Raises:
            ProcessGone: The process vanished, or its memory did (a zombie).
            MemoryFault: Not all of it is mapped.
            ValueError: ``size`` is negative.
        """
        if size < 0:
            raise ValueError(f"size is {size}")
        if not 0 <= address < 1 << 63:
            raise MemoryFault(self._pid, address)
        chunks = []
        done = 0
        while done < size:
            try:
                chunk = os.pread(self._fd, size - done, address + done)
            except OSError as error:
                if error.errno == errno.ESRCH:
                    raise ProcessGone(self._pid) from error
                raise MemoryFault(self._pid, address + done) from error
            if not chunk:
                # mem_rw in fs/proc/base.c reads nothing, without an error, once the memory has been given back.
                raise ProcessGone(self._pid)
            chunks.append(chunk)
            done += len(chunk)
        return b"".join(chunks)


def read_memory(pid: int, address: int, size: int) -> bytes:
    """As ``Memory.read``, for one reading.

    Raises:
        ProcessGone: The process vanished, or its memory did (a zombie).
        MemoryFault: Not all of it is mapped.
        PermissionDenied: It may not be read.
        ValueError: ``size`` is negative.
    """
    with Memory(pid) as memory:
        return memory.read(address, size)
