"""The daemons under fire: a colony and an agent without authentication, a colony with it, and a program to debug."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from support import build
from support.cli import CORAL, clean_environment
from support.stack import Daemon, dev_stack, free_port
from support.target import running

_READY_S = 60
_CONTEXT = 40
_TRACES = re.compile(r"Traceback|rpc failed|task failed|Task exception|was never awaited|Exception ignored")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server.

    Attributes:
        name: For people.
        address: HOST:PORT.
        package: Of its services.
        ca_pem: By which it is known; None for plain text.
        token: One that lets in everywhere; empty if nobody is asked.
    """

    name: str
    address: str
    package: str
    ca_pem: bytes | None = None
    token: str = ""


class Plant:
    """What runs.

    Attributes:
        servers: Those to fuzz.
        service: A service that runs, with a function ``work``.
    """

    def __init__(self, servers: list[Server], service: str, processes: dict[str, int], logs: list[Path]) -> None:
        self.servers = servers
        self.service = service
        self._processes = {name: psutil.Process(pid) for name, pid in processes.items()}
        self._logs = logs
        self._seen = 0

    def dead(self) -> list[str]:
        """The daemons that run no more."""
        return [name for name, process in self._processes.items() if not process.is_running() or process.status() == "zombie"]

    def memory_bytes(self) -> dict[str, int]:
        """What each daemon holds, with what it has started."""
        held = {}
        for name, process in self._processes.items():
            parts = [process, *process.children(recursive=True)]
            held[name] = sum(part.memory_info().rss for part in parts if part.is_running())
        return held

    def complaints(self) -> list[str]:
        """What the logs tell of a defect: the line, and what follows it."""
        found = []
        for log in self._logs:
            lines = log.read_text(errors="replace").splitlines()
            for number, line in enumerate(lines):
                if _TRACES.search(line):
                    found.append(" | ".join(part.strip()[:200] for part in lines[max(0, number - 1) : number + _CONTEXT]))
        return found


@contextmanager
def plant(folder: Path) -> Iterator[Plant]:
    """Starts all, and ends it."""
    with ExitStack() as held:
        target = held.enter_context(running(build.c_program("loop"), "--calls", 10))
        (folder / "dev").mkdir()
        stack = held.enter_context(dev_stack(folder / "dev"))
        secured, daemon = _secured(folder)
        held.callback(daemon.stop)
        supervisor = psutil.Process(_pid_of(folder / "dev"))
        servers = [
            Server(name="colony", address=stack.colony, package="coral.colony.v1"),
            Server(name="agent", address=stack.agent, package="coral.mesh.v1"),
            secured,
        ]
        processes = {"secured colony": daemon.process.pid}
        for child in supervisor.children():
            processes["colony" if "colony" in child.cmdline() else "agent"] = child.pid
        yield Plant(servers, target.service, processes, [folder / "dev" / "dev.log", folder / "secured.log"])


def _pid_of(folder: Path) -> int:
    """The supervisor whose state directory is in a folder."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "dev" in command and str(folder / "state") in command and "setpriv" not in command[0]:
            return int(process.pid)
    raise RuntimeError("coral dev does not run")


def _secured(folder: Path) -> tuple[Server, Daemon]:
    """A colony with credentials."""
    state = folder / "secured"
    made = subprocess.run(
        [CORAL, "colony", "init", "--state-dir", state, "--name", "localhost", "--name", "127.0.0.1"],
        capture_output=True, text=True, check=True, env=clean_environment(),
    )  # fmt: skip
    address = f"127.0.0.1:{free_port()}"
    options = ["--listen", address, "--agent-listen", f"127.0.0.1:{free_port()}", "--state-dir", str(state)]
    limits = {
        "CORAL_COLONY__CALLS_PER_S": "100000",
        "CORAL_COLONY__CALLS_BURST": "100000",
        "CORAL_COLONY__REFUSALS_PER_S": "100000",
    }
    daemon = Daemon(["colony", "start", *options], folder / "secured.log", limits)
    ca_pem = (state / "ca.pem").read_bytes()
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(ca_pem)) as channel:
        grpc.channel_ready_future(channel).result(_READY_S)
    server = Server(
        name="secured colony",
        address=address,
        package="coral.colony.v1",
        ca_pem=ca_pem,
        token=made.stdout.strip(),
    )
    return server, daemon
