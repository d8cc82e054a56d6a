"""Reading a BPF ring buffer in bulk.

Layout (kernel/bpf/ringbuf.c): page 0 holds the consumer position, page 1 the producer position, then come the data, mapped
twice in a row so that a record that wraps can be read in one piece. Each record has an 8-byte header: length with a busy bit
(reserved, not yet submitted) and a discard bit, then the page offset. All records of a ring have one size here, so a drain
is one numpy view, and copying it one run over memory: records move as bytes, since numpy would copy structures a field at a
time, which takes nine times as long.
"""

from __future__ import annotations

import mmap

import numpy as np
import numpy.typing as npt

_BUSY = 1 << 31
_DISCARDED = 1 << 30
AT_ONCE = 32_768
"""Records of one drain, at most: more would be memory that no cache holds, and that is new to the process each time."""
_PAGE = mmap.PAGESIZE

Array = npt.NDArray[np.void]


class Ring:
    """One ring.

    Args:
        fd: Its descriptor, owned by the object that made it.
        size_bytes: Of its data, a power of two.
        layout: Of a record, without the header.
    """

    def __init__(self, fd: int, size_bytes: int, layout: npt.DTypeLike) -> None:
        self.fd = fd
        self._size = size_bytes
        self._body = np.dtype(layout)
        size = self._body.itemsize
        self._layout = np.dtype([("length", "u4"), ("page", "u4"), ("body", f"V{size}"), ("padding", f"V{-size % 8}")])
        self._consumer_page = mmap.mmap(fd, _PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
        self._data_pages = mmap.mmap(fd, _PAGE + 2 * size_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=_PAGE)
        self._consumer = np.frombuffer(self._consumer_page, "u8", 1)
        self._producer = np.frombuffer(self._data_pages, "u8", 1)
        self._data = np.frombuffer(self._data_pages, "u1", 2 * size_bytes, _PAGE)

    def drain(self) -> Array:
        """Takes the records that are complete, in order, up to ``AT_ONCE`` of them; a copy, possibly empty."""
        consumed, produced = int(self._consumer[0]), int(self._producer[0])
        size = self._layout.itemsize
        count = min((produced - consumed) // size, AT_ONCE)
        start = consumed & (self._size - 1)
        view = self._data[start : start + count * size].view(self._layout)
        marks = int(view["length"].max(initial=0))
        if marks & _BUSY:
            view = view[: np.flatnonzero(view["length"] & _BUSY)[0]]
        bodies = view["body"]
        # Above every length: with the busy ones cut off, a discarded record is the largest.
        if marks >= _DISCARDED:
            bodies = bodies[(view["length"] & _DISCARDED) == 0]
        records: Array = bodies.copy().view(self._body)
        self._consumer[0] = consumed + len(view) * size
        return records

    def close(self) -> None:
        """Unmaps it."""
        del self._consumer, self._producer, self._data
        self._consumer_page.close()
        self._data_pages.close()
