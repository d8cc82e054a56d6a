"""Takes every privilege from the agent that it does not need once it has started.

Root has 41 capabilities; the agent needs seven. What it gave away it cannot get back, and neither can what it starts: no
capability is left to be inherited, executing a program gains none although it is root's (SECBIT_NOROOT, no_new_privs), and
the bounding set holds no other. What confines the readers of files takes more than that, so their template starts before.

Capabilities belong to threads. This is done while there is one, before libraries are loaded that start their own.

Sources: capabilities(7), prctl(2), capset(2), linux/capability.h, linux/securebits.h.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

from coral.model.errors import FailedPrecondition

NEEDED = {
    "CAP_DAC_READ_SEARCH": 2,  # programs, libraries and debug files of all users
    "CAP_KILL": 5,  # ending readers, which run as another user
    "CAP_SYS_PTRACE": 19,  # what /proc says of the processes of others: environment, maps, memory
    "CAP_LEASE": 28,  # being told when a probed file is to be written over
    "CAP_PERFMON": 38,  # attaching probes
    "CAP_BPF": 39,  # their programs and maps
    "CAP_CHECKPOINT_RESTORE": 40,  # /proc/PID/map_files: the very library that a process maps
}
"""What the agent keeps, by name, with its number, of linux/capability.h."""

_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS = 28, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_NO_ROOT_LOCKED = 0b11  # SECBIT_NOROOT, SECBIT_NOROOT_LOCKED
_SYS_CAPGET, _SYS_CAPSET = {"x86_64": (125, 126), "aarch64": (90, 91)}.get(os.uname().machine, (0, 0))
_HEADER = struct.pack("<Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
_CAP_SETPCAP = 8

_libc = ctypes.CDLL(None, use_errno=True)


def drop() -> int:
    """Gives away all capabilities but those in ``NEEDED``, for good.

    Returns:
        What is left, as bits: of ``NEEDED`` what this process had.

    Raises:
        FailedPrecondition: It cannot be done, or would not be done for all of the process.
    """
    threads = sum(1 for _ in Path("/proc/self/task").iterdir())
    if threads != 1:
        raise FailedPrecondition(
            f"The agent has {threads} threads before its privileges are dropped, and one would drop them."
        )
    effective, permitted, _ = capabilities()
    kept = permitted & sum(1 << number for number in NEEDED.values())
    if effective >> _CAP_SETPCAP & 1:
        number = 0
        while _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) >= 0:  # fails behind the last one that this kernel knows
            if not kept >> number & 1:
                _must("leave a capability behind", _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0))
            number += 1
        _must("give up what root gains by executing", _libc.prctl(_PR_SET_SECUREBITS, _NO_ROOT_LOCKED, 0, 0, 0))
    _must("give up ambient capabilities", _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    _must("give up new privileges", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    low, high = kept & 0xFFFFFFFF, kept >> 32
    wanted = struct.pack(
        "<6I", low, low, 0, high, high, 0
    )  # effective, permitted, inheritable: the low halves, then the high
    _must("give up capabilities", _libc.syscall(_SYS_CAPSET, _HEADER, wanted))
    if capabilities() != (kept, kept, 0):
        raise FailedPrecondition("The agent kept capabilities that it was told to give up.")
    return kept


def capabilities() -> tuple[int, int, int]:
    """Effective, permitted and inheritable ones of this thread, as bits."""
    data = ctypes.create_string_buffer(24)
    _must("read its capabilities", _libc.syscall(_SYS_CAPGET, _HEADER, data))
    low, high = struct.unpack("<3I", data.raw[:12]), struct.unpack("<3I", data.raw[12:])
    effective, permitted, inheritable = (a | b << 32 for a, b in zip(low, high, strict=True))
    return effective, permitted, inheritable


def _must(what: str, result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise FailedPrecondition(
            f"The agent could not {what}: {os.strerror(number)}.",
            hint="Find what forbids this step: a security module, or a filter of system calls.",
        )
