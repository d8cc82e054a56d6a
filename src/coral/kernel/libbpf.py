"""The few functions of libbpf.so.1 that Coral calls, with their failures turned into ``OSError``.

libbpf opens the object, relocates it against the running kernel's BTF and loads it; uprobe_multi links are made by the
raw bpf(2) call (link.py), since Debian 12's libbpf 1.1 does not know them.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any

from coral.model.errors import FailedPrecondition

_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "bpf_object__open_mem": (c_void_p, [c_char_p, c_size_t, c_void_p]),
    "bpf_object__load": (c_int, [c_void_p]),
    "bpf_object__close": (None, [c_void_p]),
    "bpf_object__find_program_by_name": (c_void_p, [c_void_p, c_char_p]),
    "bpf_object__find_map_by_name": (c_void_p, [c_void_p, c_char_p]),
    "bpf_program__set_type": (c_int, [c_void_p, c_int]),
    "bpf_program__set_expected_attach_type": (c_int, [c_void_p, c_int]),
    "bpf_program__set_flags": (c_int, [c_void_p, c_uint32]),
    "bpf_program__fd": (c_int, [c_void_p]),
    "bpf_program__attach": (c_void_p, [c_void_p]),
    "bpf_link__destroy": (c_int, [c_void_p]),
    "bpf_map__fd": (c_int, [c_void_p]),
    "bpf_map__set_max_entries": (c_int, [c_void_p, c_uint32]),
    "bpf_map_lookup_elem": (c_int, [c_int, c_void_p, c_void_p]),
    "bpf_map_update_elem": (c_int, [c_int, c_void_p, c_void_p, c_uint64]),
    "bpf_map_delete_elem": (c_int, [c_int, c_void_p]),
    "bpf_map_lookup_batch": (c_int, [c_int, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p]),
    "libbpf_set_print": (c_void_p, [c_void_p]),
    "libbpf_major_version": (c_uint32, []),
    "libbpf_minor_version": (c_uint32, []),
}


@cache
def library() -> ctypes.CDLL:
    """libbpf, with argument types declared and its own printing switched off.

    Raises:
        FailedPrecondition: It is not installed.
    """
    try:
        loaded = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise FailedPrecondition(f"libbpf cannot be loaded: {error}.", hint="Install it: apt-get install libbpf1.") from None
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    loaded.libbpf_set_print(None)
    return loaded


def check(result: int | None, what: str) -> int:
    """Returns what a libbpf function returned, unless that says failure.

    Args:
        result: A count, a descriptor, 0, or a negative errno; or a pointer, for which None is failure.
        what: What was tried, for the message.

    Raises:
        OSError: With the errno.
    """
    if result is None or result < 0:
        number = ctypes.get_errno() if result is None or result == -1 else -result
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
