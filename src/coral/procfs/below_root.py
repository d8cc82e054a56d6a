"""Opens files as a process sees them: below its root directory, which no symbolic link leads out of."""

from __future__ import annotations

import ctypes
import errno
import os
import stat

_SYS_OPENAT2 = 437  # on every architecture; since Linux 5.6
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10


class _OpenHow(ctypes.Structure):
    """``struct open_how``, openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_root(pid: int) -> int:
    """The root directory of a process, open; the caller closes it.

    Raises:
        OSError: The process is gone, or may not be looked into.
    """
    return os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def open_below(root_fd: int, path: str) -> int:
    """A regular file, open for reading; the caller closes it.

    What a process can reach, its user may have made: absolute links and ``..`` stay below the root, links of /proc lead
    nowhere, and what is a device, a pipe or a socket is not opened at all.

    Args:
        root_fd: The directory that counts as root.
        path: Absolute, as seen from there.

    Raises:
        OSError: There is no such file, or it may not be opened.
    """
    how = _OpenHow(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    libc = ctypes.CDLL(None, use_errno=True)
    found = int(libc.syscall(_SYS_OPENAT2, root_fd, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)))
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    try:
        return open_regular(f"/proc/self/fd/{found}")
    finally:
        os.close(found)


def open_regular(path: str) -> int:
    """A regular file, open for reading, with nothing done to what is another kind of file; the caller closes it.

    Raises:
        OSError: There is no such file, it is another kind of file, or it may not be opened.
    """
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    finally:
        os.close(place)
