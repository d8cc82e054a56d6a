"""Whatever way a program was started and whatever it has done to itself: its calls are counted, and it notices nothing."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from support import build, rpc
from support.launch import from_memory, launched
from support.namespaces import IN_CHROOT, UNSHARE
from support.observe import counted, every_call_stored, ledger_faults
from support.stack import Stack
from support.target import unique_service
from support.text import changed_text

pytestmark = pytest.mark.kernel

_CALLS = 100
_EXIT = 7
_BEHIND_A_SHELL = ("sh", "-c", '"$@"; exit $?', "sh")
"""The service's name stays in the environment of the shell, where a program that writes over its own cannot reach it."""
_UNDER_GDB = (
    *("sh", "-c"),
    "service=$CORAL_SERVICE; unset CORAL_SERVICE; program=$1; shift; exec 3<&0 4>&1 </dev/null >/dev/null; "
    'exec gdb -q -nx -batch -return-child-result -iex "set auto-solib-add off" '
    '-ex "set environment CORAL_SERVICE $service" -ex "run $* <&3 >&4" "$program"',
    "sh",
)


def _shell(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script, "sh")


def _loop(*flags: str) -> str:
    return str(build.c_program("loop", *flags))


def _hardened(*options: str) -> list[str]:
    return [str(build.c_program("hardened")), *options]


def _copied(program: str, folder: Path, mode: int = 0o755) -> str:
    copy = folder / f"program-{mode:o}"
    shutil.copy2(program, copy)
    copy.chmod(mode)
    return str(copy)


BUILDS: dict[str, Callable[[Path], Sequence[str]]] = {
    "static-pie": lambda _: [_loop("-static-pie")],
    "separate code": lambda _: [_loop("-Wl,-z,separate-code")],
    "aligned to 2 MB": lambda _: [_loop("-Wl,-z,max-page-size=0x200000", "-Wl,-z,common-page-size=0x200000")],
    "musl": lambda _: [str(build.musl_program("loop"))],
    "static musl": lambda _: [str(build.musl_program("loop", "-static"))],
    "run by its loader": lambda _: ["/lib64/ld-linux-x86-64.so.2", _loop()],
}
FILES: dict[str, Callable[[Path], Sequence[str]]] = {
    "deleted": lambda folder: [*_shell('exec 9<"$1"; rm "$1"; shift; exec /proc/self/fd/9 "$@"'), _copied(_loop(), folder)],
    "replaced": lambda folder: [
        *_shell('exec 9<"$1"; cp /bin/true "$1.new"; mv "$1.new" "$1"; shift; exec /proc/self/fd/9 "$@"'),
        _copied(_loop("-O1"), folder),
    ],
    "from memory": lambda _: from_memory(Path(_loop())),
    "on a file system of its own": lambda _: [
        *(*UNSHARE, "--mount"),
        *_shell('mount -t tmpfs tmpfs /mnt; cp "$1" /mnt/program; shift; exec /mnt/program "$@"'),
        _loop(),
    ],
    "seen in two mount namespaces": lambda _: [
        *(*UNSHARE, "--mount"),
        *_shell('mount -t tmpfs tmpfs /mnt; touch /mnt/seen; mount --bind "$1" /mnt/seen; shift; exec /mnt/seen "$@"'),
        _loop("-O1"),
    ],
    "seen in the other one": lambda _: [_loop("-O1")],
    "chroot": lambda folder: ["chroot", str(folder), f"/{Path(_copied(_loop('-static'), folder, 0o700)).name}"],
}
PLACES: dict[str, Callable[[Path], Sequence[str]]] = {
    "pid namespace": lambda _: [*UNSHARE, "--pid", "--fork", "--kill-child", "--mount-proc", _loop()],
    "all namespaces but the user's": lambda _: [
        *(*UNSHARE, "--mount", "--pid", "--fork", "--net", "--ipc", "--uts", "--cgroup", "--kill-child", _loop()),
    ],
    "no address randomisation": lambda _: ["setarch", "--addr-no-randomize", _loop()],
    "few resources": lambda _: ["prlimit", "--memlock=0", "--nofile=4", "--nproc=1", "--stack=65536", _loop()],
    "setuid": lambda folder: ["setpriv", "--reuid=nobody", "--clear-groups", _copied(_loop(), folder, 0o4755)],
    "unprivileged": lambda folder: ["setpriv", "--reuid=nobody", "--clear-groups", _copied(_loop(), folder)],
    "no capabilities": lambda _: ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", _loop()],
    "strace": lambda _: ["strace", "-f", "-o", "/dev/null", _loop()],
    "gdb": lambda _: [*_UNDER_GDB, _loop()],
}
if not IN_CHROOT:  # where the kernel makes no user namespaces (unshare(2), EPERM)
    PLACES |= {
        "user namespace": lambda _: ["unshare", "--user", "--map-root-user", _loop()],
        "all namespaces": lambda _: [
            *("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--net", "--ipc", "--uts", "--cgroup"),
            *("--kill-child", _loop()),
        ],
    }
HABITS: dict[str, Callable[[Path], Sequence[str]]] = {
    "mlockall": lambda _: _hardened("--lock", "1"),
    "title over arguments and environment": lambda _: [*_BEHIND_A_SHELL, *_hardened("--title", "1")],
    "looks at its own code": lambda _: _hardened("--check", "1"),
    "main thread gone": lambda _: _hardened("--main", "0"),
    "seccomp that kills": lambda _: _hardened("--seccomp", "1"),
    "seccomp with errno": lambda _: _hardened("--seccomp", "2"),
    "strict seccomp": lambda _: _hardened("--seccomp", "3"),
}


@pytest.mark.parametrize("ways", [BUILDS, FILES, PLACES, HABITS], ids=["builds", "files", "places", "habits"])
def test_ways_of_running(stack: Stack, tmp_path: Path, ways: Mapping[str, Callable[[Path], Sequence[str]]]) -> None:
    """One session has a program for each way: each is counted call by call, computes what it would, and ends as without."""
    tmp_path.chmod(0o755)
    service = unique_service("ways")
    options = ("--calls", _CALLS, "--exit", _EXIT)
    with ExitStack() as programs:
        targets = {
            way: programs.enter_context(launched([*command(tmp_path), *options], service=service))
            for way, command in ways.items()
        }
        pids = {way: target.pid for way, target in targets.items()}
        before = {way: changed_text(pid) for way, pid in pids.items()}  # gdb has a breakpoint of its own in the loader
        session_id = rpc.attach(stack.colony, service, "work").session_id
        (session,) = rpc.sessions(stack.colony, session_id=session_id)
        statuses = {one.pid: (one.status, one.reason) for one in session.collectors[0].instances}
        assert {way: statuses[pid] for way, pid in pids.items()} == dict.fromkeys(ways, ("attached", ""))
        assert [way for way, pid in pids.items() if changed_text(pid) == before[way]] == []
        assert {way: target.run()["wrong"] for way, target in targets.items()} == dict.fromkeys(ways, 0)
        document = stack.cli.stop(session_id)
        after = {way: changed_text(pid) for way, pid in pids.items()}
        if "gdb" in ways:  # whose breakpoints might be the session's: they stay as long as it does
            assert len(after.pop("gdb")) > len(before.pop("gdb"))
        assert after == before
        assert {way: target.finish() for way, target in targets.items()} == dict.fromkeys(ways, _EXIT)
    calls = Counter(event["pid"] for event in stack.cli.events(session_id))
    assert {way: calls[pid] for way, pid in pids.items()} == dict.fromkeys(ways, _CALLS)
    assert ledger_faults(document["ledger"]) == []
    assert counted(document["ledger"]) == every_call_stored(_CALLS * len(ways))


def test_32_bit_program(stack: Stack) -> None:
    """A program of 32 bits is not probed, which is said; it is left alone, and a 64-bit one beside it is counted."""
    service = unique_service("both")
    with launched([build.c_program_32("small")], service=service) as small:
        with pytest.raises(grpc.RpcError) as refused:
            rpc.attach(stack.colony, service, "work")
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "32-bit" in refused.value.details()
        with launched([_loop(), "--calls", 50], service=service) as large:
            session_id = rpc.attach(stack.colony, service, "work").session_id
            assert changed_text(small.pid) == []
            small.go()
            assert small.process.wait(10) == 9
            assert large.run()["wrong"] == 0
            document = stack.cli.stop(session_id)
            assert changed_text(large.pid) == []
            assert large.finish() == 0
    assert counted(document["ledger"]) == every_call_stored(50)
    assert [(one["pid"], one["status"]) for one in document["collectors"][0]["instances"]] == [(large.pid, "detached")]
