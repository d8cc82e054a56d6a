"""A ring in memory that a test fills itself, with the layout that the kernel gives its own (kernel/bpf/ringbuf.c)."""

from __future__ import annotations

import mmap
import os

import numpy as np
import numpy.typing as npt

from coral.events.record import RECORD, Array
from coral.kernel.ring import Ring


class MemoryRing:
    """The producer's side, and a reader of the agent's on the same memory.

    Args:
        size_bytes: Of its data, a power of two.

    Attributes:
        reader: What the agent reads it with.
        room: How many records it holds.
    """

    def __init__(self, size_bytes: int) -> None:
        self._size = size_bytes
        self._fd = os.memfd_create("ring")
        os.ftruncate(self._fd, 2 * mmap.PAGESIZE + 2 * size_bytes)
        self.reader = Ring(self._fd, size_bytes, RECORD)
        self._memory = mmap.mmap(self._fd, 0)
        self._consumer = np.frombuffer(self._memory, "u8", 1)
        self._producer = np.frombuffer(self._memory, "u8", 1, mmap.PAGESIZE)
        self._data = np.frombuffer(self._memory, "u1", 2 * size_bytes, 2 * mmap.PAGESIZE)
        self._layout = np.dtype([("length", "u4"), ("page", "u4"), ("body", RECORD)])
        self.room = size_bytes // self._layout.itemsize

    def write(self, records: Array, marks: npt.ArrayLike = 0) -> int:
        """Adds records, with marks (busy, discarded) in their headers; returns how many found room, as the kernel's would."""
        used = int(self._producer[0] - self._consumer[0])
        fits = min(len(records), (self._size - used) // self._layout.itemsize)
        made = np.zeros(fits, self._layout)
        made["length"] = RECORD.itemsize
        made["length"] |= np.broadcast_to(np.asarray(marks, "u4"), len(records))[:fits]
        made["body"] = records[:fits]
        content = made.view("u1")
        start = int(self._producer[0]) & (self._size - 1)
        first = min(len(content), self._size - start)
        for at, piece in ((start, content[:first]), (0, content[first:])):
            for half in (0, self._size):  # the kernel maps the same pages twice; a file of memory has to hold them twice
                self._data[half + at : half + at + len(piece)] = piece
        self._producer[0] += len(content)
        return fits

    def submit(self) -> None:
        """Takes the busy mark off every record that the ring holds."""
        size = self._layout.itemsize
        for position in range(int(self._consumer[0]), int(self._producer[0]), size):
            for half in (0, self._size):
                at = half + (position & (self._size - 1)) + 3
                self._data[at % len(self._data)] &= 0x7F

    def rewind(self, records: int) -> None:
        """Makes the reader find the first so many records of the memory once more."""
        self._consumer[0] = 0
        self._producer[0] = records * self._layout.itemsize

    def close(self) -> None:
        """Gives the memory back."""
        self.reader.close()
        del self._consumer, self._producer, self._data
        self._memory.close()
        os.close(self._fd)
