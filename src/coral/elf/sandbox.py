"""Takes everything from a process that reading a file does not need.

Two steps, because readers are forked from a template (see ``worker``): ``confine`` takes files, networks, privileges and
memory without end, once, in the template; ``seal`` takes new processes and nearly all system calls, in each reader. Each is
taken in several ways, so that one that fails to hold is not the only one: no file can be opened by path, as the root is an
empty read-only directory, Landlock allows nothing, and the filter knows no ``open``.

A step is left out, and said, when the kernel does not have it or this process has not the capability that it takes. A step
that can be done and fails ends in an error: an unconfined process reads nothing.

Sources: capabilities(7), credentials(7), namespaces(7), pivot_root(2), landlock(7), seccomp(2), linux/filter.h,
linux/landlock.h, linux/seccomp.h; numbers of x86-64.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import socket
import struct
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from coral.model.errors import FailedPrecondition

NOBODY = 65_534
"""The user and group that the kernel shows for ids it cannot map: nothing belongs to it."""
MEMORY_BYTES = 1 << 30
"""What one reader may allocate (RLIMIT_DATA); files that it maps do not count."""
ADDRESS_SPACE_BYTES = 16 << 30
"""What it may map, files included."""
DESCRIPTORS = 64

_MACHINE = "x86_64"
_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC, _CLONE_NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_SLAVE = 1, 2, 4, 8, 0x4000, 1 << 19
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_GET_DUMPABLE, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 3, 4, 22, 24
_PR_SET_NO_NEW_PRIVS, _PR_GET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 39, 47, 4
_SYS_PIVOT_ROOT, _SYS_CAPGET, _SYS_CAPSET = 155, 125, 126
_SYS_LANDLOCK_CREATE, _SYS_LANDLOCK_RESTRICT = 444, 446
_SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 430, 431, 432
_CLOEXEC, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 1, 1, 6  # include/uapi/linux/mount.h
_EMPTY_ATTRIBUTES = 0b1111  # MOUNT_ATTR_RDONLY, NOSUID, NODEV, NOEXEC
_LANDLOCK_VERSION = 1
_CAP_SETGID, _CAP_SETUID, _CAP_SETPCAP, _CAP_SYS_CHROOT, _CAP_SYS_ADMIN = 6, 7, 8, 18, 21
_CAPABILITY_HEADER = struct.pack("<Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
_UNSUPPORTED = frozenset((errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENODEV))

# What Python, numpy and the C library need to compute, to receive files and to answer; nothing that opens, executes, or
# reaches another process. Memory may be mapped, but not executable.
_MAPPING_CALLS = {"mmap": 9, "mprotect": 10}
# fmt: off
_CALLS = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "munmap": 11, "brk": 12, "rt_sigaction": 13,
    "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "sched_yield": 24, "mremap": 25, "madvise": 28, "dup": 32,
    "setitimer": 38, "getpid": 39, "sendto": 44, "recvfrom": 45, "sendmsg": 46, "recvmsg": 47, "exit": 60, "fcntl": 72,
    "gettimeofday": 96, "getrusage": 98, "sigaltstack": 131, "gettid": 186, "futex": 202, "restart_syscall": 219,
    "clock_gettime": 228, "exit_group": 231, "newfstatat": 262, "getrandom": 318,
}
# fmt: on
_AUDIT_ARCH_X86_64 = 0xC000003E
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JSET|K, BPF_RET|K
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
_NUMBER_AT, _ARCH_AT, _PROTECTION_AT = 0, 4, 32  # struct seccomp_data: nr, arch, ip, args[6]; protection is args[2]
_PROT_EXEC = 4

_libc = ctypes.CDLL(None, use_errno=True)


def confine() -> list[str]:
    """Takes files by path, networks, privileges and limits from this process and its children, for good.

    What it will import has to be imported before.

    Returns:
        What was left out, each with the reason.

    Raises:
        FailedPrecondition: A step that this kernel and these privileges allow could not be done.
    """
    held = _effective_capabilities()
    _require_one_thread()
    left_out = [
        *_volunteer_for_the_oom_killer(),
        *_leave_namespaces(held),
        *_leave_privileges(held),
    ]
    _set_limits()
    _prctl("take away new privileges", _PR_SET_NO_NEW_PRIVS, 1)
    _prctl("keep others from reading its memory", _PR_SET_DUMPABLE, 0)
    left_out += _leave_paths_to_landlock()
    _verify_confined(held)
    return left_out


def end_with(parent: int) -> None:
    """Ends this process when its parent's thread ends that started it. A fork and a change of user take this back (prctl(2)).

    Raises:
        FailedPrecondition: It is gone already.
    """
    _prctl("end with its parent", _PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise FailedPrecondition("The agent ended while its reader of files was starting.")


def seal() -> list[str]:
    """Takes new processes and all system calls but a few from this process, for good.

    Returns:
        What was left out, each with the reason.

    Raises:
        FailedPrecondition: A step that this kernel allows could not be done.
    """
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    if platform.machine() != _MACHINE:
        return [f"the filter of system calls: its numbers are for {_MACHINE}"]
    program = b"".join(_filter())
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a length in instructions, and a pointer to them.
    announced = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    if _libc.prctl(_PR_SET_SECCOMP, 2, announced, 0, 0):
        number = ctypes.get_errno()
        if number in _UNSUPPORTED:
            return [f"the filter of system calls: this kernel has none ({os.strerror(number)})"]
        raise _failed("filter system calls", number)
    try:
        socket.socket(socket.AF_UNIX).close()
    except PermissionError:
        return []
    raise FailedPrecondition("The filter of system calls does not hold: a socket could be made.")


def _require_one_thread() -> None:
    # Capabilities, filters and Landlock are of threads; a library that started one at its import would keep them all.
    try:
        threads = sum(1 for _ in Path("/proc/self/task").iterdir())
    except OSError as error:
        raise _failed("count its own threads in /proc/self/task", error.errno or 0) from None
    if threads != 1:
        raise FailedPrecondition(f"The reader of files has {threads} threads, of which one would be confined.")


def _volunteer_for_the_oom_killer() -> list[str]:
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError as error:
        return [f"being the first to end when memory runs out: /proc/self/oom_score_adj: {error.strerror}"]
    return []


def _leave_namespaces(held: int) -> list[str]:
    """Into a network without interfaces, and a file system that is one empty read-only directory."""
    if not _has(held, _CAP_SYS_ADMIN):
        return ["own namespaces and an empty root directory: they take CAP_SYS_ADMIN"]
    left_out = []
    kinds = (("network", _CLONE_NEWNET), ("message queue", _CLONE_NEWIPC), ("host name", _CLONE_NEWUTS))
    for name, flag in kinds:
        if reason := _attempt(f"leave the {name} namespace", partial(_libc.unshare, flag)):
            left_out.append(f"an own {name} namespace: {reason}")
    if reason := _attempt("leave the mount namespace", lambda: _libc.unshare(_CLONE_NEWNS)):
        return [*left_out, f"an own mount namespace and an empty root directory: {reason}"]
    # As a slave, so that what the host unmounts is not kept busy from here in the meantime.
    if _libc.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None):
        number = ctypes.get_errno()
        if number != errno.EINVAL:
            raise _failed("detach its mounts from the host's", number)
        # In a chroot "/" is no mount: what is mounted here would be seen by others, and pivot_root(2) is not for it.
        return [*left_out, *_enter_unseen_mount()]
    empty = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    # Over /proc, which every host has; nothing else looks through this process's mounts.
    _must(
        "mount an empty directory", lambda: _libc.mount(b"none", b"/proc", b"tmpfs", empty, b"size=4k,nr_inodes=2,mode=555")
    )
    os.chdir("/proc")
    # pivot_root(2), "pivot_root(".", ".")": the old root is stacked on the new one, and detached from it.
    _must("change its root directory", lambda: _libc.syscall(_SYS_PIVOT_ROOT, b".", b"."))
    _must("leave the host's file system", lambda: _libc.umount2(b".", _MNT_DETACH))
    os.chdir("/")
    return left_out


def _enter_unseen_mount() -> list[str]:
    """Makes an empty directory its root that is mounted nowhere (fsopen(2), fsconfig(2), fsmount(2), chroot(2))."""
    system = _libc.syscall(_SYS_FSOPEN, b"tmpfs", _CLOEXEC)
    if system < 0:
        number = ctypes.get_errno()
        if number in _UNSUPPORTED:
            return [f"an empty root directory: this process is in a chroot, and {os.strerror(number)}"]
        raise _failed("open an empty file system", number)
    for key, value in ((b"size", b"4k"), (b"nr_inodes", b"2"), (b"mode", b"555")):
        _must(
            "describe an empty file system",
            partial(_libc.syscall, _SYS_FSCONFIG, system, _FSCONFIG_SET_STRING, key, value, 0),
        )
    _must("make an empty file system", lambda: _libc.syscall(_SYS_FSCONFIG, system, _FSCONFIG_CMD_CREATE, None, None, 0))
    root = _libc.syscall(_SYS_FSMOUNT, system, _CLOEXEC, _EMPTY_ATTRIBUTES)
    if root < 0:
        raise _failed("mount an empty file system", ctypes.get_errno())
    os.close(system)
    _must("enter an empty directory", lambda: _libc.fchdir(root))
    _must("change its root directory", lambda: _libc.chroot(b"."))
    os.close(root)
    return []


def _leave_privileges(held: int) -> list[str]:
    """Becomes a user that owns nothing, without a capability and without a way to gain one."""
    left_out = []
    if _has(held, _CAP_SETPCAP):
        for capability in range(64):
            if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
                break  # behind the last one that this kernel knows
    if _has(held, _CAP_SETGID):
        _must("leave its groups", lambda: _libc.setgroups(0, None))
        _must("leave its group", lambda: _libc.setresgid(NOBODY, NOBODY, NOBODY))
    else:
        left_out.append("a group without files: it takes CAP_SETGID")
    if _has(held, _CAP_SETUID):
        _must("leave its user", lambda: _libc.setresuid(NOBODY, NOBODY, NOBODY))
    else:
        left_out.append("a user without files: it takes CAP_SETUID")
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    nothing = bytes(24)
    _must("give its capabilities away", lambda: _libc.syscall(_SYS_CAPSET, _CAPABILITY_HEADER, nothing))
    return left_out


def _set_limits() -> None:
    for limit, most in (
        (resource.RLIMIT_DATA, MEMORY_BYTES),
        (resource.RLIMIT_AS, ADDRESS_SPACE_BYTES),
        (resource.RLIMIT_NOFILE, DESCRIPTORS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(limit, (most, most))


def _leave_paths_to_landlock() -> list[str]:
    version = _libc.syscall(_SYS_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    if version < 0:
        number = ctypes.get_errno()
        if number in _UNSUPPORTED:
            return [f"Landlock: this kernel has none ({os.strerror(number)})"]
        raise _failed("ask for Landlock", number)
    # Everything that this version can restrict is restricted, and no rule allows any of it again.
    files = (1 << 13) - 1
    for since, bit in ((2, 13), (3, 14), (5, 15)):
        files |= (version >= since) << bit
    handled = [files, 0b11 if version >= 4 else None, 0b11 if version >= 6 else None]
    attributes = b"".join(struct.pack("<Q", bits) for bits in handled if bits is not None)
    ruleset = _libc.syscall(_SYS_LANDLOCK_CREATE, attributes, len(attributes), 0)
    if ruleset < 0:
        raise _failed("make a Landlock ruleset", ctypes.get_errno())
    try:
        _must("restrict itself by Landlock", lambda: _libc.syscall(_SYS_LANDLOCK_RESTRICT, ruleset, 0))
    finally:
        os.close(ruleset)
    return []


def _verify_confined(held: int) -> None:
    """Asks the kernel whether what was done holds."""
    wrong = []
    if _has(held, _CAP_SETUID) and os.getresuid() != (NOBODY,) * 3:
        wrong.append("its user")
    if _has(held, _CAP_SETGID) and (os.getresgid() != (NOBODY,) * 3 or os.getgroups()):
        wrong.append("its groups")
    if any(_capabilities()):
        wrong.append("its capabilities")
    if _libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1:
        wrong.append("the way to new privileges")
    if _libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0):
        wrong.append("its readable memory")
    if _has(held, _CAP_SYS_ADMIN) and Path("/proc/self").exists():
        wrong.append("the host's files")
    if wrong:
        raise FailedPrecondition(f"The reader of files kept {' and '.join(wrong)} though it was told to give them up.")


def _filter() -> Iterable[bytes]:
    """The filter as BPF: the calls of ``_CALLS``, and mappings that are not executable; else EPERM.

    EPERM rather than the end of the process: a C library that tries a newer call falls back to an older one.
    """
    names = [*_MAPPING_CALLS.values(), *_CALLS.values()]
    check = len(names) + 1  # how many instructions follow the first comparison up to "check"
    yield _instruction(_LOAD, 0, 0, _ARCH_AT)
    yield _instruction(_EQUAL, 1, 0, _AUDIT_ARCH_X86_64)
    yield _instruction(_RETURN, 0, 0, _KILL)
    yield _instruction(_LOAD, 0, 0, _NUMBER_AT)
    for index, number in enumerate(names):
        to = check if number in _MAPPING_CALLS.values() else check + 3
        yield _instruction(_EQUAL, to - index - 1, 0, number)
    yield _instruction(_RETURN, 0, 0, _REFUSE)
    yield _instruction(_LOAD, 0, 0, _PROTECTION_AT)  # check:
    yield _instruction(_ANY_BIT, 0, 1, _PROT_EXEC)
    yield _instruction(_RETURN, 0, 0, _REFUSE)
    yield _instruction(_RETURN, 0, 0, _ALLOW)


def _instruction(code: int, yes: int, no: int, operand: int) -> bytes:
    """A ``struct sock_filter``: how far to go on where a comparison holds, and where not."""
    return struct.pack("<HBBI", code, yes, no, operand)


def _capabilities() -> tuple[int, int, int]:
    """Effective, permitted and inheritable, as bits."""
    data = ctypes.create_string_buffer(24)
    _must("read its capabilities", lambda: _libc.syscall(_SYS_CAPGET, _CAPABILITY_HEADER, data))
    low = struct.unpack_from("<III", data.raw, 0)
    high = struct.unpack_from("<III", data.raw, 12)
    effective, permitted, inheritable = (a | b << 32 for a, b in zip(low, high, strict=True))
    return effective, permitted, inheritable


def _effective_capabilities() -> int:
    return _capabilities()[0]


def _has(held: int, capability: int) -> bool:
    return bool(held >> capability & 1)


def _prctl(what: str, *arguments: int) -> None:
    _must(what, lambda: _libc.prctl(*arguments, *(0,) * (5 - len(arguments))))


def _attempt(what: str, call: Callable[[], int]) -> str:
    """Empty when it was done; else why this kernel cannot.

    Raises:
        FailedPrecondition: It could, and failed.
    """
    if not call():
        return ""
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return f"this kernel has none ({os.strerror(number)})"
    raise _failed(what, number)


def _must(what: str, call: Callable[[], int]) -> None:
    if call():
        raise _failed(what, ctypes.get_errno())


def _failed(what: str, number: int) -> FailedPrecondition:
    return FailedPrecondition(
        f"The reader of files could not {what}: {os.strerror(number)}.",
        hint="It reads nothing unless it is confined: find what forbids this step (a security module, a container's filter).",
    )
