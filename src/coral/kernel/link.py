"""uprobe_multi links: many sites of one file attached by one bpf(2) call (Linux 6.6, commit 89ae89f53d20).

Closing the descriptor detaches: when close() returns the kernel has put the original bytes back in every process and no
program runs any more. A killed owner's descriptors are closed for it, so nothing outlives the agent.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence

import numpy as np

from coral.model.addresses import FileOffset
from coral.model.errors import FailedPrecondition

_SYS_BPF = 321
_BPF_LINK_CREATE = 28
UPROBE_MULTI = 48
"""BPF_TRACE_UPROBE_MULTI of enum bpf_attach_type (include/uapi/linux/bpf.h)."""
_ENOTSUPP = 524


class _LinkCreate(ctypes.Structure):
    """``link_create`` of union bpf_attr, with its ``uprobe_multi`` member."""

    _fields_ = (
        ("program_fd", ctypes.c_uint32),
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("path", ctypes.c_uint64),
        ("offsets", ctypes.c_uint64),
        ("reference_offsets", ctypes.c_uint64),
        ("cookies", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("multi_flags", ctypes.c_uint32),
        ("pid", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    )


def create(program_fd: int, path: str, offsets: Sequence[FileOffset], cookies: Sequence[int], *, pid: int = 0) -> int:
    """Attaches a program to sites of a file.

    Args:
        program_fd: Of a program that was loaded for UPROBE_MULTI.
        path: Of the file; ``/proc/self/fd/N`` names exactly the file that is open as N.
        offsets: Of the sites in the file.
        cookies: One per site.
        pid: Only this process (with all its threads); 0 for every process that maps the file, now or later.

    Returns:
        The descriptor of the link.

    Raises:
        FailedPrecondition: The kernel refuses an instruction.
        OSError: Anything else.
    """
    offset_array, cookie_array = np.array(offsets, "u8"), np.array(cookies, "u8")
    encoded = ctypes.create_string_buffer(os.fsencode(path))
    request = _LinkCreate(
        program_fd=program_fd,
        attach_type=UPROBE_MULTI,
        path=ctypes.addressof(encoded),
        offsets=offset_array.ctypes.data,
        cookies=cookie_array.ctypes.data,
        count=len(offset_array),
        pid=pid,
    )
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.syscall(_SYS_BPF, _BPF_LINK_CREATE, ctypes.byref(request), ctypes.sizeof(request)))
    if fd < 0:
        number = ctypes.get_errno()
        if number == _ENOTSUPP:
            raise FailedPrecondition("The kernel refuses to probe an instruction of this function.")
        raise OSError(number, f"attach {len(offset_array)} probes: {os.strerror(number)}")
    return fd


def supported(program_fd: int) -> bool:
    """Whether this kernel has uprobe_multi links: it then looks at the path first, and a directory is EBADF."""
    try:
        os.close(create(program_fd, "/", [FileOffset(1)], [0]))
    except OSError as error:
        return error.errno == errno.EBADF
    return True
