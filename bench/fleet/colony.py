"""The colony of a simulated fleet: a real process, as `coral colony start` runs it, and what it uses."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import duckdb
import psutil

from bench.fleet.plan import Part, Plan
from bench.stack import CORAL
from coral.client.endpoint import Endpoint
from coral.colony.store.database import Database
from coral.colony.store.enrolment import Issued, put_certificate
from coral.colony.store.schema import CONTROL
from coral.trust.authority import holder_of, new_key, private_pem, request_for
from coral.trust.colony_keys import ColonyKeys
from coral.trust.commands import public_pem

_READY_S = 120.0
_STOP_S = 30.0
_LIFE_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process has used.

    Attributes:
        cpu_s: CPU seconds so far, its children's included.
        memory_bytes: Resident now.
        at: When, of the monotonic clock.
    """

    cpu_s: float
    memory_bytes: int
    at: float

    def cores_since(self, earlier: Usage) -> float:
        """CPU seconds per second."""
        return (self.cpu_s - earlier.cpu_s) / (self.at - earlier.at)


class FleetColony:
    """One colony over one folder, which may be restarted on the same ports.

    Attributes:
        endpoint: Where a user reaches it.
        agents: HOST:PORT for agents.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._state = folder / "colony"
        self._token = ""
        self._process: psutil.Process | None = None
        self._started: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self.endpoint = Endpoint(address="127.0.0.1:0")
        self.agents = "127.0.0.1:0"

    def found(self) -> None:
        """Makes its keys, if it is to have any."""
        if self._plan.secured:
            command = [str(CORAL), "colony", "init", "--state-dir", str(self._state), "--name", "127.0.0.1"]
            self._token = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    def enrol(self, parts: list[Part]) -> list[Part]:
        """The parts with a certificate for each agent, as if all had joined; one at a time would take minutes."""
        if not self._plan.secured:
            return parts
        keys = ColonyKeys.load(self._state)
        issued: list[Issued] = []
        given: list[Part] = []
        for part in parts:
            certificates = {}
            for agent_id in part.agent_ids:
                key = new_key()
                pem = keys.authority.issue_agent(request_for(key, agent_id), agent_id, lifetime_s=_LIFE_S)
                certificates[agent_id] = pem.decode(), private_pem(key).decode()
                serial, expires_at_ns = holder_of(pem).serial, holder_of(pem).expires_at_ns
                issued.append(
                    Issued(serial=serial, agent_id=agent_id, issued_at_ns=time.time_ns(), expires_at_ns=expires_at_ns)
                )
            given.append(
                replace(
                    part,
                    ca=keys.authority.pair.certificate.decode(),
                    colony_id=keys.colony_id,
                    command_key=public_pem(keys.command_key).decode(),
                    certificates=certificates,
                )
            )
        asyncio.run(_keep(self._state / "control.duckdb", issued))
        return given

    def start(self) -> None:
        """Starts it, and returns when it is ready."""
        options = ["--listen", self.endpoint.address, "--state-dir", str(self._state)]
        options += ["--agent-listen", self.agents] if self._plan.secured else ["--insecure"]
        environment = {
            "CORAL_COLONY__HEARTBEAT_MS": str(round(self._plan.heartbeat_s * 1000)),
            "CORAL_COLONY__MAX_CONNECTIONS": str(max(4096, self._plan.agents + 500)),
        }
        reader, writer = os.pipe()
        self._log = (self._folder / "colony.log").open("ab")
        self._started = subprocess.Popen(
            [str(CORAL), "colony", "start", *options, "--ready-fd", str(writer)],
            pass_fds=[writer], stdout=self._log, stderr=self._log, env=os.environ | environment,
        )  # fmt: skip
        os.close(writer)
        with os.fdopen(reader) as pipe:
            line = pipe.readline()
        if not line:
            sys.exit(f"the colony did not start: {(self._folder / 'colony.log').read_text()[-2000:]}")
        facts = json.loads(line)
        self._process = psutil.Process(facts["pid"])
        ca = (self._state / "ca.pem").read_bytes() if self._plan.secured else None
        self.endpoint = Endpoint(address=facts["colony"], ca_pem=ca, token=self._token)
        self.agents = facts["agents"] or facts["colony"]

    def stop(self) -> None:
        """Ends it in order."""
        if self._started is not None:
            self._started.terminate()
            self._started.wait(_STOP_S)
            self._started = None
        if self._log is not None:
            self._log.close()

    def usage(self) -> Usage:
        """What it has used."""
        assert self._process is not None
        parts = [self._process, *self._process.children(recursive=True)]
        times = [part.cpu_times() for part in parts]
        return Usage(
            cpu_s=sum(each.user + each.system for each in times),
            memory_bytes=self._process.memory_info().rss,
            at=time.monotonic(),
        )

    def errors(self) -> list[str]:
        """The lines of its log that report a failure."""
        lines = (self._folder / "colony.log").read_text(errors="replace").splitlines()
        return [line for line in lines if "error" in line.lower() or "Traceback" in line]


async def _keep(path: Path, issued: list[Issued]) -> None:
    database = Database(path, CONTROL)
    await database.open()

    def put(connection: duckdb.DuckDBPyConnection) -> None:
        for each in issued:
            put_certificate(connection, each)

    await database.write(put)
    await database.close()
