"""Which probes the kernel holds, asked of the kernel itself: bpf(2), without any code of Coral's."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SYS_BPF = 321  # x86-64
_OBJ_GET_INFO_BY_FD, _LINK_GET_FD_BY_ID, _LINK_GET_NEXT_ID = 15, 30, 31
_UPROBE_MULTI = 12
_PATH_BYTES = 4096
_libc = ctypes.CDLL(None, use_errno=True)


class _LinkInfo(ctypes.Structure):
    """struct bpf_link_info of include/uapi/linux/bpf.h, with the member for uprobe_multi."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("_pad", ctypes.c_uint32),
        ("path", ctypes.c_uint64),
        ("offsets", ctypes.c_uint64),
        ("ref_ctr_offsets", ctypes.c_uint64),
        ("cookies", ctypes.c_uint64),
        ("path_size", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("pid", ctypes.c_uint32),
        ("_more", ctypes.c_uint8 * 64),
    )


def probed_paths() -> list[str]:
    """The files of all uprobe_multi links that exist on this machine, one for each link."""
    paths = []
    for link_id in _ids():
        with _opened(link_id) as fd:
            if fd >= 0 and (path := _path(fd)):
                paths.append(path)
    return paths


def links_of(pid: int) -> int:
    """How many BPF links a process holds open; 0 when it is gone."""
    count = 0
    try:
        for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
            try:
                count += "\nlink_type:" in entry.read_text()
            except FileNotFoundError:
                continue
    except FileNotFoundError:
        return 0
    return count


def _ids() -> Iterator[int]:
    attributes = (ctypes.c_uint32 * 32)()
    last = 0
    while True:
        attributes[0] = last
        if _bpf(_LINK_GET_NEXT_ID, attributes) < 0:
            return
        last = attributes[1]
        yield last


@contextmanager
def _opened(link_id: int) -> Iterator[int]:
    """A descriptor of a link; -1 when it has gone meanwhile."""
    attributes = (ctypes.c_uint32 * 32)()
    attributes[0] = link_id
    fd = _bpf(_LINK_GET_FD_BY_ID, attributes)
    try:
        yield fd
    finally:
        if fd >= 0:
            os.close(fd)


def _path(fd: int) -> str:
    """The file that a link probes; empty when it is of another kind."""
    text, info = ctypes.create_string_buffer(_PATH_BYTES), _LinkInfo()
    info.path, info.path_size = ctypes.addressof(text), _PATH_BYTES
    attributes = (ctypes.c_uint32 * 32)()
    attributes[0], attributes[1] = fd, ctypes.sizeof(info)
    ctypes.cast(ctypes.byref(attributes, 8), ctypes.POINTER(ctypes.c_uint64))[0] = ctypes.addressof(info)
    if _bpf(_OBJ_GET_INFO_BY_FD, attributes) < 0:
        # Links of other kinds take a pointer elsewhere for something else, and refuse it.
        return ""
    return text.value.decode() if info.type == _UPROBE_MULTI else ""


def _bpf(command: int, attributes: ctypes.Array[ctypes.c_uint32]) -> int:
    return int(_libc.syscall(_SYS_BPF, command, ctypes.byref(attributes), ctypes.sizeof(attributes)))
