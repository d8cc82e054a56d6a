"""What a case has: a colony and an agent as processes that can be hurt one by one, and programs that count themselves."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from support import build, rpc
from support.stack import Daemon, SplitStack, free_port
from support.target import Target, running

from faults.footprint import Footprint, footprint

RATE = 4100
"""Calls a second of each program, throughout: 4,000 and a little, for what a busy machine keeps it from."""


class FaultStack(SplitStack):
    """A colony and an agent whose settings, addresses and state a case may change before it starts one again.

    Attributes:
        colony_env: Further variables of the colony.
        agent_env: Further variables of the agent.
        colony_for_agent: HOST:PORT where the agent is told that the colony is; a proxy's, for what happens to links.
        agent_for_colony: HOST:PORT where the colony is told that the agent is.
        agent_id: Of the agent.
        setting: What a case had set up around it; None for nothing.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.colony_env: dict[str, str] = {}
        self.agent_env: dict[str, str] = {}
        self.colony_for_agent = self.colony
        self.agent_for_colony = ""
        self.agent_id = self.AGENT_ID
        self.setting: Any = None
        self.colony_state = folder / "colony"
        self.agent_state = folder / "agent"
        self._metrics = {name: f"127.0.0.1:{free_port()}" for name in ("colony", "agent")}

    def start_colony(self) -> None:
        """Starts the colony on its state directory, and waits until it answers."""
        options = ["--insecure", "--listen", self.colony, "--state-dir", str(self.colony_state)]
        env = {**self._serving_metrics("colony"), **self.colony_env}
        self.colony_daemon = Daemon(["colony", "start", *options], self.state_dir / "colony.log", env)
        rpc.wait_until_healthy(self.colony)

    def forgo_metrics(self, name: str) -> None:
        """Has a daemon, ``colony`` or ``agent``, serve no metrics: it is of a release that has none."""
        self._metrics[name] = ""

    def _serving_metrics(self, name: str) -> dict[str, str]:
        listen = self._metrics[name]
        return {f"CORAL_{name.upper()}__METRICS_LISTEN": listen} if listen else {}

    def start_agent(self, *, wait: bool = True) -> None:
        """Starts the agent on its state directory.

        Args:
            wait: Until the colony sees it, which it does not where links are cut.
        """
        options = ["--insecure", "--listen", self.agent, "--colony", self.colony_for_agent]
        options += ["--state-dir", str(self.agent_state)]
        env = {
            "CORAL_AGENT__AGENT_ID": self.agent_id,
            "CORAL_AGENT__ADVERTISE": self.agent_for_colony,
            **self._serving_metrics("agent"),
            **self.agent_env,
        }
        self.agent_daemon = Daemon(["agent", "start", *options], self.state_dir / "agent.log", env)
        rpc.wait_until_healthy(self.agent)
        if wait:
            rpc.wait_for_agent(self.colony, self.agent_id, "online")

    @contextmanager
    def another_agent(self, agent_id: str) -> Iterator[Daemon]:
        """A second agent on this host, as if on another one; it sees the same programs. It is gone at the end."""
        listen = f"127.0.0.1:{free_port()}"
        options = ["--insecure", "--listen", listen, "--colony", self.colony, "--state-dir", str(self.state_dir / agent_id)]
        env = {"CORAL_AGENT__AGENT_ID": agent_id, **self.agent_env}
        daemon = Daemon(["agent", "start", *options], self.state_dir / f"{agent_id}.log", env)
        try:
            rpc.wait_until_healthy(listen)
            rpc.wait_for_agent(self.colony, agent_id, "online")
            yield daemon
        finally:
            daemon.stop()

    @property
    def colony_pid(self) -> int:
        """Of the colony."""
        assert self.colony_daemon is not None
        return self.colony_daemon.process.pid

    @property
    def agent_pid(self) -> int:
        """Of the agent itself; its workers are below it."""
        assert self.agent_daemon is not None
        return self.agent_daemon.process.pid

    def footprints(self) -> dict[str, Footprint]:
        """Both daemons as they are now."""
        return {
            "colony": footprint(self.colony_pid, self._metrics["colony"]),
            "agent": footprint(self.agent_pid, self._metrics["agent"]),
        }


@contextmanager
def fault_stack(
    folder: Path | None = None, setting: Callable[[FaultStack], AbstractContextManager[Any]] | None = None
) -> Iterator[FaultStack]:
    """A colony and an agent, both running.

    Args:
        folder: For their state and logs; None for one that is gone at the end.
        setting: What is set up around them before they start.
    """
    with tempfile.TemporaryDirectory(prefix="coral-faults-") as scratch, ExitStack() as exits:
        stack = FaultStack(folder or Path(scratch))
        try:
            if setting is not None:
                stack.setting = exits.enter_context(setting(stack))
            stack.start_colony()
            stack.start_agent()
            yield stack
        finally:
            for name, daemon in (("colony", stack.colony_daemon), ("agent", stack.agent_daemon)):
                if daemon is not None and daemon.process.poll() not in (None, 0, -9):
                    print(f"the log of the {name} ends with:", *daemon.lines()[-10:], sep="\n  ")
            stack.stop()


class Steady:
    """A program that makes calls at a rate until it is told to stop, and counts them where they survive it.

    Attributes:
        target: The running program.
        function: What is probed.
        program: Its executable, this run's own copy.
        rate: Calls a second.
        threads: That share them.
        stopped: Whether it was told to end its calls.
    """

    threads = 2

    def __init__(self, target: Target, function: str, program: Path, counters: Path, rate: int) -> None:
        self.target = target
        self.function = function
        self.program = program
        self.rate = rate
        self.stopped = False
        self._counters = counters

    @property
    def pid(self) -> int:
        """Of the program."""
        return self.target.pid

    @property
    def service(self) -> str:
        """Its service."""
        return self.target.service

    def go(self) -> None:
        """Lets it begin."""
        self.target.go()

    def counted(self) -> tuple[int, int, int]:
        """Calls begun, calls returned, wrong results, so far; also when the program is dead."""
        calls, returned, wrong, _ = struct.unpack("4q", self._counters.read_bytes())
        return calls, returned, wrong

    def stop(self) -> float:
        """Ends its calls; it lives on, so that its text can be looked at. Returns how many it made a second."""
        self.stopped = True
        report = self.target.run(60)
        return float(report["calls"] / report["seconds"])

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.target.process.poll() is None


@contextmanager
def steady(
    kind: str, folder: Path, *, rate: int = RATE, env: Mapping[str, str] | None = None, own_file: bool = False
) -> Iterator[Steady]:
    """A program that waits to begin.

    Args:
        kind: ``c`` or ``go``.
        folder: For its counters.
        rate: Calls a second.
        env: Further variables.
        own_file: Whether no other program is to run from its file, whose breakpoints are in all that do.
    """
    program = build.c_program("steady") if kind == "c" else build.go_program("steady")
    if own_file:
        handle, own = tempfile.mkstemp(prefix=f"steady-{kind}-", dir=folder)
        os.close(handle)
        program = Path(shutil.copy2(program, own))
    options = (
        ["--rate", rate, "--threads", Steady.threads, "--exit", 9]
        if kind == "c"
        else ["-rate", rate, "-threads", Steady.threads, "-exit", 9]
    )
    handle, name = tempfile.mkstemp(prefix=f"counters-{kind}-", dir=folder)
    os.close(handle)
    with running(program, *options, env={"TRUTH_COUNTERS": name, **(env or {})}) as target:
        yield Steady(target, "work" if kind == "c" else "main.Work", program, Path(name), rate)
