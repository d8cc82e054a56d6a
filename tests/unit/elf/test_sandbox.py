"""What a process that reads files can still do: compute, and answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.namespaces import UNSHARE

from coral.elf import sandbox

_SRC = Path(sandbox.__file__).parents[2]
# Prints what became of each attempt; standard output is a pipe, which stays.
_ATTEMPTS = """
import ctypes, json, mmap, os, resource, signal, socket, sys, threading
from coral.elf import sandbox
libc = ctypes.CDLL(None, use_errno=True)
image = os.open(sys.executable, os.O_RDONLY)
writable = os.open(sys.argv[1], os.O_RDWR)
for user in map(int, sys.argv[2:]):
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: as it is for whoever was started as this user
left_out = sandbox.confine()
parent = os.getppid()
def raw(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
confined = {
    "open": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "proc": lambda: os.listdir("/proc"),
    "write": lambda: os.pwrite(writable, b"x", 0),
    "setuid": lambda: os.setuid(0),
    "chroot": lambda: os.chroot("."),
    "connect": lambda: socket.socket().connect(("127.0.0.1", 9)),
    "lock": lambda: raw(151, 3),
    "memory": lambda: len(bytearray(2 << 30)),
}
sealed = {
    "open": lambda: os.open("/", os.O_RDONLY),
    "socket": lambda: socket.socket(),
    "fork": os.fork,
    "thread": lambda: threading.Thread(target=print).start(),
    "execve": lambda: os.execv("/bin/true", ["true"]),
    "kill": lambda: os.kill(parent, 0),
    "ptrace": lambda: raw(101, 16, parent, 0, 0),
    "process_vm_readv": lambda: raw(310, parent, 0, 0, 0, 0, 0),
    "bpf": lambda: raw(321, 0, 0, 0),
    "io_uring_setup": lambda: raw(425, 1, 0),
    "memfd_create": lambda: os.memfd_create("x"),
    "unshare": lambda: raw(272, 0x10000000),
    "executable memory": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    "more memory": lambda: resource.setrlimit(resource.RLIMIT_DATA, (1 << 40, 1 << 40)),
    "x32": lambda: raw(0x40000000 + 39),
    "mapped file": lambda: mmap.mmap(image, 0, mmap.MAP_SHARED, mmap.PROT_READ)[:4].decode("latin-1"),
    "descriptor": lambda: os.pread(image, 4, 0).decode("latin-1"),
}
def attempt(what):
    try:
        return str(what() or "done")
    except PermissionError:
        return "not permitted"
    except (OSError, MemoryError, RuntimeError, ValueError):
        return "failed"
found = {"left_out": left_out, "ids": [os.getresuid(), os.getresgid(), os.getgroups()]}
found["confined"] = {name: attempt(what) for name, what in confined.items()}
found["sealing"] = sandbox.seal()
found["sealed"] = {name: attempt(what) for name, what in sealed.items()}
print(json.dumps(found))
"""
_NOT_PERMITTED = (
    *("open", "socket", "fork", "execve", "kill", "ptrace", "process_vm_readv", "bpf", "io_uring_setup", "memfd_create"),
    *("unshare", "executable memory", "x32"),
)
_SEALED = {
    **dict.fromkeys(_NOT_PERMITTED, "not permitted"),
    **dict.fromkeys(("thread", "more memory"), "failed"),
    "mapped file": "\x7fELF",
    "descriptor": "\x7fELF",
}


# Runs a command in a root directory that is no mount point, as `chroot` into an unpacked system makes it.
_IN_CHROOT = """
root=$1; shift
for path in /*; do
  if [ -L "$path" ]; then cp -P "$path" "$root/"
  elif [ -d "$path" ]; then mkdir "$root$path"; mount --rbind "$path" "$root$path"
  fi
done
exec chroot "$root" "$@"
"""


def _attempted(tmp_path: Path, *users: int, chroot: Path | None = None) -> dict[str, Any]:
    """What a process found it could do, which became one of ``users`` first, and whose root directory ``chroot`` became."""
    before = [*UNSHARE, "--mount", "sh", "-eu", "-c", _IN_CHROOT, "sh", str(chroot)] if chroot else []
    written = tmp_path / "written"
    written.write_text("kept")
    done = subprocess.run(
        [*before, sys.executable, "-c", _ATTEMPTS, str(written), *map(str, users)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(_SRC)},
    )
    assert done.returncode == 0, done.stderr
    assert written.read_text() == "kept"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.kernel
@pytest.mark.parametrize("in_chroot", [False, True], ids=["host", "chroot"])
def test_a_reader_of_a_root_agent_can_do_nothing_but_read_what_it_was_given(tmp_path: Path, in_chroot: bool) -> None:
    """Nothing is left out where root and the kernel can do it, and each attempt ends in an error."""
    nobody = sandbox.NOBODY
    root = tmp_path / "root"
    root.mkdir()
    assert _attempted(tmp_path, chroot=root if in_chroot else None) == {
        "left_out": [],
        "ids": [[nobody] * 3, [nobody] * 3, []],
        "confined": {
            **dict.fromkeys(("setuid", "chroot", "connect", "lock"), "not permitted"),
            **dict.fromkeys(("open", "proc", "write", "memory"), "failed"),
        },
        "sealing": [],
        "sealed": _SEALED,
    }


@pytest.mark.kernel
def test_without_root_what_takes_root_is_left_out_and_said(tmp_path: Path) -> None:
    """The rest holds all the same: no file by path, no network, no new process."""
    assert _attempted(tmp_path, 65533) == {
        "left_out": [
            "own namespaces and an empty root directory: they take CAP_SYS_ADMIN",
            "a group without files: it takes CAP_SETGID",
            "a user without files: it takes CAP_SETUID",
        ],
        "ids": [[65533] * 3, [65533] * 3, []],
        "confined": {
            **dict.fromkeys(("open", "proc", "setuid", "chroot", "connect", "lock"), "not permitted"),
            **dict.fromkeys(("write", "memory"), "failed"),
        },
        "sealing": [],
        "sealed": _SEALED,
    }


def test_a_step_that_could_be_done_and_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel does not have is a reason to go on; anything else is none."""
    for number, expected in ((38, "this kernel has none"), (22, "this kernel has none")):
        monkeypatch.setattr(sandbox.ctypes, "get_errno", lambda number=number: number)
        assert expected in sandbox._attempt("leave", lambda: -1)
    monkeypatch.setattr(sandbox.ctypes, "get_errno", lambda: 1)
    with pytest.raises(
        sandbox.FailedPrecondition, match=r"could not leave: Operation not permitted\. It reads nothing unless"
    ):
        sandbox._attempt("leave", lambda: -1)
