"""Runs colony and agent as children, says when both answer, and ends both whatever ends first."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coral.cli.entry import OK, TERMINATED
from coral.cli.output import narrate
from coral.client.channel import connect
from coral.client.colony import ColonyClient
from coral.client.endpoint import Endpoint
from coral.dev.child import Child
from coral.dev.credentials import DevCredentials, prepare
from coral.dev.privileges import check_privileges
from coral.model.errors import CoralError, DeadlineExceeded, FailedPrecondition, Unavailable

AGENT_ID = "agent-1"
_HOST = "127.0.0.1"
_AGENTS_PORT = 8083
_READY_S = 60.0
_POLL_S = 0.05


async def run_dev(*, state_dir: Path | None, colony_port: int, agent_port: int, auth: bool, verbosity: int) -> int:
    """Runs colony and agent until a signal comes.

    Args:
        state_dir: Where both keep their state; None for a temporary directory.
        colony_port: On loopback; 0 takes a free one.
        agent_port: Likewise.
        auth: Whether both ask for credentials.
        verbosity: Above 0 the daemons log to stderr, and more; else to files in the state directory.

    Returns:
        The exit code: that of an orderly end after SIGINT or SIGTERM.

    Raises:
        FailedPrecondition: A privilege is missing or a port is taken.
        CoralError: A child ended by itself, or did not come up.
    """
    check_privileges("coral dev")
    _check_port(colony_port, "--colony-port")
    _check_port(agent_port, "--agent-port")
    directory = state_dir or Path(tempfile.mkdtemp(prefix="coral-dev-"))
    dev = _Dev(directory, colony_port=colony_port, agent_port=agent_port, auth=auth, verbosity=verbosity)
    try:
        return await dev.run()
    finally:
        if state_dir is None:
            await asyncio.to_thread(shutil.rmtree, directory)


class _Dev:
    """The children of one ``coral dev``."""

    def __init__(self, directory: Path, *, colony_port: int, agent_port: int, auth: bool, verbosity: int) -> None:
        self._directory = directory
        self._colony_port = colony_port
        self._agent_port = agent_port
        self._auth = auth
        self._verbosity = verbosity
        self._children: list[Child] = []
        self._asked = asyncio.Event()
        self._exit_code = OK

    async def run(self) -> int:
        """From the start to the end of the children."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._signal, OK)
        for number in (signal.SIGTERM, signal.SIGHUP):  # a terminal that closes must not leave the temporary directory behind
            loop.add_signal_handler(number, self._signal, TERMINATED)
        serving = asyncio.ensure_future(self._serve())
        asked = asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait((serving, asked), return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving
        finally:
            for task in (serving, asked):
                task.cancel()
            await asyncio.gather(serving, asked, return_exceptions=True)
            for child in reversed(self._children):  # the agent first: the colony is there to take its last counts
                await child.stop()
        return self._exit_code

    def _signal(self, exit_code: int) -> None:
        if self._asked.is_set():
            for child in self._children:
                child.kill()
            return
        self._exit_code = exit_code
        self._asked.set()

    async def _serve(self) -> None:
        credentials = await prepare(self._directory, self._directory / "colony") if self._auth else None
        agents = f"{_HOST}:{_AGENTS_PORT if self._colony_port else 0}"
        options = ["--agent-listen", agents] if credentials else ["--insecure"]
        colony = await self._start("colony", self._colony_port, "--colony-port", options)
        endpoint = credentials.endpoint(colony) if credentials else Endpoint(address=colony)
        options = ["--colony", colony, *([] if credentials else ["--insecure"])]
        join = {"CORAL_AGENT__JOIN": await credentials.invite(colony, AGENT_ID)} if credentials else {}
        agent = await self._start("agent", self._agent_port, "--agent-port", options, join)
        ends = [asyncio.ensure_future(child.process.wait()) for child in self._children]
        up = asyncio.ensure_future(self._all_answer(endpoint, Endpoint(address=agent)))
        try:
            await asyncio.wait((up, *ends), return_when=asyncio.FIRST_COMPLETED)
            if up.done():
                await up
                facts = {"ready": True, "colony": colony, "agent": agent, "state_dir": str(self._directory)}
                if credentials:
                    facts |= {"ca": str(credentials.ca_file), "token_file": str(credentials.token_file)}
                print(json.dumps(facts, separators=(",", ":")), file=sys.stderr, flush=True)  # noqa: T201  (what whoever started this waits for)
                if sys.stderr.isatty():
                    narrate(f"{_how(credentials)} Ctrl-C stops both; logs are in {self._directory}.")
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (up, *ends):
                task.cancel()
        raise next(child for child in self._children if child.process.returncode is not None).ended()

    async def _start(
        self, name: str, port: int, flag: str, options: list[str], environment: Mapping[str, str] | None = None
    ) -> str:
        """Starts a daemon; where it serves."""
        state_dir = self._directory / name
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        verbose = ["-v"] * self._verbosity
        child = await Child.start(
            name,
            [name, "start", "--listen", f"{_HOST}:{port}", "--state-dir", str(state_dir), *options, *verbose],
            environment={"CORAL_AGENT__AGENT_ID": AGENT_ID, **(environment or {})},
            log=None if self._verbosity else self._directory / f"{name}.log",
        )
        self._children.append(child)
        try:
            facts = await child.ready(_READY_S)
        except CoralError:
            _check_port(port, flag)  # somebody may have taken it since it was looked at
            raise
        return str(facts[name])

    async def _all_answer(self, colony: Endpoint, agent: Endpoint) -> None:
        """Waits until both answer health checks and the colony knows the agent. One that has joined answers its colony alone.

        Raises:
            DeadlineExceeded: That took too long.
        """
        try:
            async with asyncio.timeout(_READY_S):
                for endpoint in (colony,) if self._auth else (colony, agent):
                    await _healthy(endpoint)
                await registered(colony, AGENT_ID)
        except TimeoutError:
            tails = "\n".join(child.log_tail() for child in self._children)
            raise DeadlineExceeded(f"Colony and agent did not find each other in {_READY_S:.0f} s.", hint=tails) from None


async def registered(colony: Endpoint | str, agent_id: str) -> None:
    """Waits until the colony can reach the agent, so that an attach works at once."""
    async with ColonyClient(colony) as client:
        while True:
            if any(agent.agent_id == agent_id and agent.status == "online" for agent in await client.agents()):
                return
            await asyncio.sleep(_POLL_S)


def _how(credentials: DevCredentials | None) -> str:
    if credentials is None:
        return "No authentication, loopback only."
    return f"Use CORAL_CA={credentials.ca_file} and CORAL_TOKEN=$(cat {credentials.token_file})."


async def _healthy(endpoint: Endpoint) -> None:
    """Waits until a server says that it serves."""
    async with connect(endpoint) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its stubs leave out what it sets at run time
        while True:
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise Unavailable(f"{endpoint.address} does not answer health checks: {error.details()}.") from None
            else:
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            await asyncio.sleep(_POLL_S)


def _check_port(port: int, flag: str) -> None:
    """Passes when the port can be had.

    Raises:
        FailedPrecondition: It cannot; names it and the flag that changes it.
    """
    if not port:
        return
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # else a connection that just ended would look like a server
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise FailedPrecondition(
                f"Port {port} cannot be had: {error.strerror}.", hint=f"Choose another with {flag}, or 0 for any free one."
            ) from None
