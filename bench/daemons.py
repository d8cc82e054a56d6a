"""A colony and an agent of a benchmark's own, with credentials or without."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.stack import CORAL
from coral.client.colony import ColonyClient
from coral.client.endpoint import Endpoint
from coral.model.errors import CoralError

_READY_S = 60.0


@dataclass(frozen=True, slots=True)
class Pair:
    """A colony with its agent, both running.

    Attributes:
        endpoint: The colony, as a user reaches it.
    """

    endpoint: Endpoint


@contextmanager
def insecure(folder: Path) -> Iterator[Pair]:
    """Without credentials, in plain text."""
    colony, agent = _port(), _port()
    with ExitStack() as held:
        _start(held, folder, "colony", "start", "--insecure", "--listen", colony, "--state-dir", folder / "colony")
        endpoint = Endpoint(address=colony)
        asyncio.run(_until(endpoint, agents=0))
        options = ("--insecure", "--listen", agent, "--colony", colony, "--state-dir", folder / "agent")
        _start(held, folder, "agent", "start", *options, agent_id="insecure")
        asyncio.run(_until(endpoint, agents=1))
        yield Pair(endpoint)


@contextmanager
def secured(folder: Path) -> Iterator[Pair]:
    """With TLS, tokens, policies, and an agent that has joined."""
    colony, agents, agent = _port(), _port(), _port()
    state = folder / "colony"
    with ExitStack() as held:
        token = _output("colony", "init", "--state-dir", state, "--name", "127.0.0.1")
        options = ("--listen", colony, "--agent-listen", agents, "--state-dir", state)
        limits = {"CORAL_COLONY__CALLS_PER_S": "1000000", "CORAL_COLONY__CALLS_BURST": "1000000"}
        _start(held, folder, "colony", "start", *options, **limits)
        endpoint = Endpoint(address=colony, ca_pem=(state / "ca.pem").read_bytes(), token=token)
        asyncio.run(_until(endpoint, agents=0))
        env = {"CORAL_TOKEN": token}
        join = _output("--colony", colony, "--ca", state / "ca.pem", "agent", "invite", **env)
        options = ("--listen", agent, "--colony", colony, "--state-dir", folder / "agent")
        _start(held, folder, "agent", "start", *options, agent_id="secured", CORAL_AGENT__JOIN=join)
        asyncio.run(_until(endpoint, agents=1))
        yield Pair(endpoint)


def _port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def _output(*words: object, **env: str) -> str:
    done = subprocess.run(
        [CORAL, *map(str, words)], capture_output=True, text=True, check=False, timeout=60, env=os.environ | env
    )
    if done.returncode:
        sys.exit(f"coral {words[0]} {words[1]} exited with {done.returncode}: {done.stderr}")
    return done.stdout.strip()


def _start(held: ExitStack, folder: Path, *words: object, agent_id: str = "", **env: str) -> None:
    if agent_id:
        env["CORAL_AGENT__AGENT_ID"] = agent_id
    log = held.enter_context((folder / f"{words[0]}.log").open("wb"))
    process = subprocess.Popen([CORAL, *map(str, words)], stdout=log, stderr=log, env=os.environ | env)
    held.callback(process.wait)
    held.callback(process.terminate)


async def _until(endpoint: Endpoint, *, agents: int) -> None:
    """Waits until the colony answers and has so many agents."""
    deadline = time.monotonic() + _READY_S
    async with ColonyClient(endpoint) as client:
        while True:
            try:
                if sum(agent.status == "online" for agent in await client.agents()) >= agents:
                    return
            except CoralError as error:
                if time.monotonic() > deadline:
                    sys.exit(f"the colony at {endpoint.address} does not answer: {error}")
            if time.monotonic() > deadline:
                sys.exit(f"no agent came to {endpoint.address}")
            await asyncio.sleep(0.05)
