"""Coral itself, running: ``coral dev``, or a colony and an agent that can be killed and started again one by one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support import rpc
from support.cli import CORAL, Cli, clean_environment

STARTED: list[Daemon] = []
"""Every daemon of this run, the latest last; a failing test shows the end of their logs."""


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Daemon:
    """A ``coral`` process that goes on until it is told to end."""

    def __init__(self, arguments: Sequence[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.arguments = list(arguments)
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                # so that a run of the tests that is killed itself leaves no daemon behind
                ["setpriv", "--pdeathsig", "TERM", str(CORAL), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=clean_environment(env),
            )
        STARTED.append(self)

    def lines(self) -> list[str]:
        """What it has written so far."""
        return self.log.read_text(errors="replace").splitlines()

    def wait_for_ready(self, timeout_s: float = 30) -> dict[str, Any]:
        """Its JSON line with ``"ready":true``."""
        deadline = time.monotonic() + timeout_s
        while True:
            for line in self.lines():
                if line.startswith('{"ready"'):
                    facts: dict[str, Any] = json.loads(line)
                    return facts
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"coral {' '.join(self.arguments)} is not ready (exit code {self.process.poll()}):\n"
                    + self.log.read_text()
                )
            time.sleep(0.02)

    def kill9(self) -> float:
        """Ends it as a crash would; returns the wall-clock time."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)
        return time.time()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Asks it to end, and returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise


class Stack:
    """A colony with one agent, and the ways to talk to them."""

    def __init__(self, *, colony: str, agent: str, state_dir: Path) -> None:
        self.colony = colony
        self.agent = agent
        self.state_dir = state_dir
        self.cli = Cli(colony)


@contextmanager
def dev_stack(folder: Path, *, colony_port: int = 0, agent_port: int = 0) -> Iterator[Stack]:
    """``coral dev`` with its state and its log in ``folder``."""
    state_dir = folder / "state"
    daemon = Daemon(
        ["dev", "--state-dir", str(state_dir), "--colony-port", str(colony_port), "--agent-port", str(agent_port)],
        folder / "dev.log",
    )
    try:
        facts = daemon.wait_for_ready()
        yield Stack(colony=facts["colony"], agent=facts["agent"], state_dir=state_dir)
    finally:
        daemon.stop()


class SplitStack(Stack):
    """A colony and an agent as processes of their own, on ports that stay the same when one of them is started again."""

    AGENT_ID = "agent-under-test"

    def __init__(self, folder: Path) -> None:
        super().__init__(colony=f"127.0.0.1:{free_port()}", agent=f"127.0.0.1:{free_port()}", state_dir=folder)
        self.colony_daemon: Daemon | None = None
        self.agent_daemon: Daemon | None = None

    def start_colony(self) -> None:
        """Starts the colony on its state directory, and waits until it answers."""
        options = ["--insecure", "--listen", self.colony, "--state-dir", str(self.state_dir / "colony")]
        self.colony_daemon = Daemon(["colony", "start", *options], self.state_dir / "colony.log")
        rpc.wait_until_healthy(self.colony)

    def start_agent(self) -> None:
        """Starts the agent on its state directory, and waits until the colony sees it."""
        options = ["--insecure", "--listen", self.agent, "--colony", self.colony]
        options += ["--state-dir", str(self.state_dir / "agent")]
        env = {"CORAL_AGENT__AGENT_ID": self.AGENT_ID}
        self.agent_daemon = Daemon(["agent", "start", *options], self.state_dir / "agent.log", env)
        rpc.wait_until_healthy(self.agent)
        rpc.wait_for_agent(self.colony, self.AGENT_ID, "online")

    def kill_colony(self) -> float:
        """Kills it with SIGKILL; returns the wall-clock time."""
        assert self.colony_daemon is not None
        return self.colony_daemon.kill9()

    def kill_agent(self) -> float:
        """Kills it with SIGKILL; returns the wall-clock time."""
        assert self.agent_daemon is not None
        return self.agent_daemon.kill9()

    def stop(self) -> None:
        """Ends both."""
        for daemon in (self.agent_daemon, self.colony_daemon):
            if daemon is not None and daemon.process.poll() is None:
                daemon.stop()


@contextmanager
def split_stack(folder: Path) -> Iterator[SplitStack]:
    """A colony and an agent, both running."""
    stack = SplitStack(folder)
    try:
        stack.start_colony()
        stack.start_agent()
        yield stack
    finally:
        stack.stop()


def is_root() -> bool:
    """Whether probes can be attached at all."""
    return os.geteuid() == 0
