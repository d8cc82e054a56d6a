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

from coral.agent.identity import Identity
from coral.trust.authority import COLONY_DNS, KeyPair, agent_dns, new_key, private_pem, request_for
from coral.trust.colony_keys import ColonyKeys

_READY_S = 60
_AGENT_ID = "joined-1"
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
        server_name: What its certificate is for, where that is not its host.
        pairs: The certificates that may be shown to it, the one that it wants first; None for none.
    """

    name: str
    address: str
    package: str
    ca_pem: bytes | None = None
    token: str = ""
    server_name: str = ""
    pairs: tuple[KeyPair | None, ...] = (None,)


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
        secured, agents_port, daemon = _secured(folder)
        held.callback(daemon.stop)
        joined, agent = _joined(folder, secured)
        held.callback(agent.stop)
        supervisor = psutil.Process(_pid_of(folder / "dev"))
        servers = [
            Server(name="colony", address=stack.colony, package="coral.colony.v1"),
            Server(name="agent", address=stack.agent, package="coral.mesh.v1"),
            secured,
            joined,
            _agents_door(folder, secured, agents_port),
        ]
        processes = {"secured colony": daemon.process.pid, "joined agent": agent.process.pid}
        for child in supervisor.children():
            processes["colony" if "colony" in child.cmdline() else "agent"] = child.pid
        yield Plant(
            servers, target.service, processes, [folder / name for name in ("dev/dev.log", "secured.log", "joined.log")]
        )


def _pid_of(folder: Path) -> int:
    """The supervisor whose state directory is in a folder."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "dev" in command and str(folder / "state") in command and "setpriv" not in command[0]:
            return int(process.pid)
    raise RuntimeError("coral dev does not run")


def _secured(folder: Path) -> tuple[Server, str, Daemon]:
    """A colony with credentials, as users reach it, and where agents do."""
    state = folder / "secured"
    made = subprocess.run(
        [CORAL, "colony", "init", "--state-dir", state, "--name", "localhost", "--name", "127.0.0.1"],
        capture_output=True, text=True, check=True, env=clean_environment(),
    )  # fmt: skip
    address, agents_port = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    options = ["--listen", address, "--agent-listen", agents_port, "--state-dir", str(state)]
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
    return server, agents_port, daemon


def _joined(folder: Path, colony: Server) -> tuple[Server, Daemon]:
    """An agent that has joined a colony: nobody comes in without a certificate, or with that of a stranger or another agent;
    with the colony's own one gets as far as the signature that each command has to have.
    """
    keys = ColonyKeys.load(folder / "secured")
    reach = ["--colony", colony.address, "--ca", str(folder / "secured/ca.pem")]
    invited = subprocess.run(
        [CORAL, *reach, "agent", "invite", "--agent-id", _AGENT_ID],
        capture_output=True, text=True, check=True, env=clean_environment({"CORAL_TOKEN": colony.token}),
    )  # fmt: skip
    address = f"127.0.0.1:{free_port()}"
    options = ["--listen", address, "--state-dir", str(folder / "joined"), "--join", invited.stdout.strip()]
    settings = {"CORAL_AGENT__AGENT_ID": _AGENT_ID}
    daemon = Daemon(["agent", "start", "--colony", colony.address, *options], folder / "joined.log", settings)
    ca_pem = keys.authority.pair.certificate
    server = Server(
        name="joined agent",
        address=address,
        package="coral.mesh.v1",
        ca_pem=ca_pem,
        server_name=agent_dns(_AGENT_ID),
        pairs=(keys.server, None, _stranger(), _issued(keys, "another")),
    )
    credentials = grpc.ssl_channel_credentials(ca_pem, keys.server.key, keys.server.certificate)
    with grpc.secure_channel(
        address, credentials, options=[("grpc.ssl_target_name_override", server.server_name)]
    ) as channel:
        grpc.channel_ready_future(channel).result(_READY_S)
    return server, daemon


def _agents_door(folder: Path, colony: Server, address: str) -> Server:
    """The port where a colony serves agents: for the one that joined, nobody, a stranger, one never known, and itself."""
    keys = ColonyKeys.load(folder / "secured")
    known = Identity.load(folder / "joined")
    pairs = (known.pair(), None, _stranger(), _issued(keys, "another"), keys.server)
    return Server(
        name="agents' port",
        address=address,
        package=colony.package,
        ca_pem=colony.ca_pem,
        server_name=COLONY_DNS,
        pairs=pairs,
    )


def _issued(keys: ColonyKeys, agent_id: str) -> KeyPair:
    """A certificate of the colony's authority for an agent that it does not know."""
    key = new_key()
    return KeyPair(
        certificate=keys.authority.issue_agent(request_for(key, agent_id), agent_id, lifetime_s=3600), key=private_pem(key)
    )


def _stranger() -> KeyPair:
    """The certificate of another colony, of another authority."""
    return ColonyKeys.create("stranger", ["localhost"], server_lifetime_s=3600).server
