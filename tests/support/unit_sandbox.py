"""What a systemd unit takes from its service, done without systemd: so that a test can run the service under it.

Taken are: capabilities (CapabilityBoundingSet), new privileges, system calls (SystemCallFilter, with systemd's own groups),
writable and executable memory (MemoryDenyWriteExecute), and all files but the state directory (ProtectSystem). Not taken:
the user (whose Python may not be his to run), namespaces, address families, devices and what else needs systemd itself.
"""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from support.build import ROOT

SYSTEMD = ROOT / "deploy" / "systemd"
_UNISTD = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")

_CONFINE = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN (Linux 6.3)
    sys.exit("PR_SET_MDWE: " + os.strerror(ctypes.get_errno()))
instruction = lambda code, yes, no, operand: struct.pack("<HBBI", code, yes, no, operand)
numbers = [int(number) for number in sys.argv[1].split(",")]
program = instruction(0x20, 0, 0, 0)
for number in numbers:
    program += instruction(0x15, 0, 1, number) + instruction(0x06, 0, 0, 0x7FFF0000)
program += instruction(0x06, 0, 0, 0x00050001)  # SECCOMP_RET_ERRNO, EPERM
code = ctypes.create_string_buffer(program, len(program))
if libc.prctl(22, 2, struct.pack("@HP", len(program) // 8, ctypes.addressof(code)), 0, 0):
    sys.exit("seccomp: " + os.strerror(ctypes.get_errno()))
os.execv(sys.argv[2], sys.argv[2:])
"""


def directives(name: str) -> dict[str, list[str]]:
    """The directives of a unit of ours, each with its values in their order."""
    found: dict[str, list[str]] = {}
    for line in (SYSTEMD / name).read_text().splitlines():
        if line and line[0] not in "#;[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def capabilities(name: str) -> set[str]:
    """What CapabilityBoundingSet leaves."""
    return {word for value in directives(name)["CapabilityBoundingSet"] for word in value.split()}


@functools.cache
def _groups() -> dict[str, list[str]]:
    """The groups of system calls that systemd knows."""
    text = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    groups: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if line.startswith("@"):
            current = groups.setdefault(line.strip(), [])
        elif line.startswith("    ") and not line.strip().startswith("#"):
            current.append(line.strip())
    return groups


def _expand(word: str) -> set[str]:
    return {call for inner in _groups()[word] for call in _expand(inner)} if word.startswith("@") else {word}


def system_calls(name: str) -> set[str]:
    """What SystemCallFilter leaves; systemd allows ``@default`` wherever something is allowed."""
    allowed = _expand("@default")
    for value in directives(name)["SystemCallFilter"]:
        words = {call for word in value.removeprefix("~").split() for call in _expand(word)}
        allowed = allowed - words if value.startswith("~") else allowed | words
    return allowed


def confined(name: str, command: Sequence[str], *, state_dir: Path) -> list[str]:
    """A command line that runs ``command`` as the unit would.

    Args:
        name: Of the unit's file.
        command: What to run, an absolute path first.
        state_dir: The one place that it may write to.
    """
    numbers = dict(re.findall(r"^#define __NR_(\w+) (\d+)$", _UNISTD.read_text(), re.MULTILINE))
    calls = sorted(int(numbers[call]) for call in system_calls(name) if call in numbers)
    bounding = "".join(f",+{each.removeprefix('CAP_').lower()}" for each in sorted(capabilities(name)))
    inner = [
        "setpriv", "--inh-caps", "-all", "--bounding-set", f"-all{bounding}", "--no-new-privs",
        sys.executable, "-I", "-c", _CONFINE, ",".join(map(str, calls)), *command,
    ]  # fmt: skip
    folder = shlex.quote(str(state_dir))
    script = (
        f"mount --make-rprivate / && mount --bind {folder} {folder} && mount -o remount,bind,ro / && exec {shlex.join(inner)}"
    )
    return ["unshare", "--mount", "sh", "-c", script]
