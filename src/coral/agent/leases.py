"""Leases on probed files: who wants to write one in place waits until its probes are gone.

The kernel keeps a file from being written only while a process runs it (ETXTBSY). Between the end of the last process and the
detach, some 100 ms, a program could be written over and started, and would carry the breakpoints of the old one in whatever
code is at their offsets now. A read lease (fcntl(2), "Leases") closes that gap: the open(2) of a writer tells the holder, and
goes on once the holder has let go, or after /proc/sys/fs/lease-break-time. A file that is replaced by another (rename) is not
concerned: that is another inode.
"""

from __future__ import annotations

import fcntl
import signal
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_F_SETOWN_EX = 15
_F_OWNER_TID = 0
"""include/uapi/asm-generic/fcntl.h; Python's fcntl has neither."""
_SIGNAL = signal.SIGRTMIN + 5
_LOOK_S = 0.5
"""A look is due after this long even without a signal: when too many are pending, the kernel leaves some out."""


class Leases:
    """The leases of this process. They are taken and given back in any thread."""

    def __init__(self) -> None:
        self._held: set[int] = set()
        self._lock = threading.Lock()
        self._thread_id = 0

    @contextmanager
    def watched(self, asked: Callable[[int], object]) -> Iterator[None]:
        """Leases can be taken within this context.

        Args:
            asked: Called with a descriptor, again and again until it is given back, when somebody wants to write the file.
                Runs in a thread of its own.
        """
        ready, stopped = threading.Event(), threading.Event()
        thread = threading.Thread(target=self._watch, args=(asked, ready, stopped), name="leases", daemon=True)
        thread.start()
        ready.wait()
        try:
            yield
        finally:
            self._thread_id = 0
            stopped.set()
            if thread.ident is not None:
                signal.pthread_kill(thread.ident, _SIGNAL)
            thread.join()

    def take(self, fd: int) -> bool:
        """Takes a lease on a file that was opened for reading alone; True when it is held.

        Not every file can have one: somebody has it open for writing, its file system has no leases, CAP_LEASE is missing.

        Args:
            fd: Not shared with another process, which would keep the lease alive.
        """
        if not self._thread_id:
            return False
        with self._lock:
            try:
                fcntl.fcntl(fd, _F_SETOWN_EX, struct.pack("ii", _F_OWNER_TID, self._thread_id))
                fcntl.fcntl(fd, fcntl.F_SETSIG, _SIGNAL)
                fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            except OSError:
                return False
            self._held.add(fd)
            return True

    def give_back(self, fd: int) -> None:
        """Lets a writer in; to be called before the descriptor is closed. Nothing happens when no lease is held."""
        with self._lock:
            if fd in self._held:
                self._held.discard(fd)
                fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    def is_wanted(self, fd: int) -> bool:
        """Whether somebody waits for this lease."""
        with self._lock:
            # While it waits, the kernel shows the lease as what it is to become.
            return fd in self._held and fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK

    def _watch(self, asked: Callable[[int], object], ready: threading.Event, stopped: threading.Event) -> None:
        # Blocked here, where they are sent to, they end nothing and wait to be fetched. SIGIO comes when their queue is full.
        signal.pthread_sigmask(signal.SIG_BLOCK, {_SIGNAL, signal.SIGIO})
        self._thread_id = threading.get_native_id()
        ready.set()
        while not stopped.is_set():
            signal.sigtimedwait({_SIGNAL, signal.SIGIO}, _LOOK_S)
            with self._lock:
                held = list(self._held)
            for fd in held:
                if self.is_wanted(fd):
                    asked(fd)
