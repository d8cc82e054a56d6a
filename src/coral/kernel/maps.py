"""BPF maps whose keys and values are numpy structures."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from coral.kernel.libbpf import check, library

Array = npt.NDArray[np.void]
_BATCH = 4096


class Map:
    """One map.

    Args:
        fd: Its descriptor, owned by the object that made it.
        key: Layout of a key.
        value: Layout of a value.
    """

    def __init__(self, fd: int, key: npt.DTypeLike, value: npt.DTypeLike) -> None:
        self.fd = fd
        self.key = np.dtype(key)
        self.value = np.dtype(value)

    def get(self, key: object) -> Array | None:
        """The value at ``key`` as an array of one; None when there is none."""
        wanted, found = np.array([key], self.key), np.zeros(1, self.value)
        result = library().bpf_map_lookup_elem(self.fd, wanted.ctypes.data, found.ctypes.data)
        if result == -errno.ENOENT:
            return None
        check(result, "read a map")
        return found

    def put(self, key: object, value: Array) -> None:
        """Sets the value at ``key``.

        Raises:
            OSError: E2BIG when the map is full.
        """
        wanted = np.array([key], self.key)
        check(library().bpf_map_update_elem(self.fd, wanted.ctypes.data, value.ctypes.data, 0), "write a map")

    def delete(self, key: object) -> bool:
        """Removes ``key``; whether it was there."""
        wanted = np.array([key], self.key)
        result = library().bpf_map_delete_elem(self.fd, wanted.ctypes.data)
        if result == -errno.ENOENT:
            return False
        check(result, "delete from a map")
        return True

    def batches(self) -> Iterator[tuple[Array, Array]]:
        """All keys and values, in batches. What changes meanwhile may be missed or seen twice."""
        position = np.zeros(1, "u4")
        started = False
        count = np.zeros(1, "u4")
        keys, values = np.zeros(_BATCH, self.key), np.zeros(_BATCH, self.value)
        while True:
            count[0] = _BATCH
            result = library().bpf_map_lookup_batch(
                self.fd,
                position.ctypes.data if started else None,
                position.ctypes.data,
                keys.ctypes.data,
                values.ctypes.data,
                count.ctypes.data,
                None,
            )
            if result != -errno.ENOENT:
                check(result, "read a map")
            found = int(count[0])
            yield keys[:found].copy(), values[:found].copy()
            if result == -errno.ENOENT:
                return
            started = True
