"""A user of the same host who is not root: nothing from the colony, nothing from an agent, nothing out of their files."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from support import as_nobody
from support.asynchronous import asynchronous
from support.every_rpc import Rpc, every_rpc, outcome
from support.secured_colony import SecuredColony, secured_colony
from support.synthetic_agent import SyntheticAgent

from coral.agent.guard import AgentGuard
from coral.agent.identity import Identity
from coral.agent.refusals import Refusals
from coral.client.channel import connect
from coral.client.endpoint import Endpoint
from coral.trust.authority import agent_dns
from coral.trust.commands import Signer, Target, public_pem
from coral.wire._generated.mesh.v1 import ebpf_pb2_grpc, inspect_pb2_grpc
from coral.wire.metadata import COMMAND_KEY
from coral.wire.server import Server
from coral.wire.tls import server_credentials

OPEN = ["/grpc.health.v1.Health/Check"]
AGENT_SERVICES = ["coral.mesh.v1.DebugService", "coral.mesh.v1.InspectService"]
AGENT_ID, BOOT_ID = "web-1", "boot-1"


@asynccontextmanager
async def guarded_agent(colony: SecuredColony) -> AsyncIterator[str]:
    """An agent of the colony behind its own guard; HOST:PORT."""
    pair = await colony.join(AGENT_ID)
    identity = Identity(
        agent_id=AGENT_ID,
        colony_id=colony.keys.colony_id,
        invite_id="",
        agent_port=0,
        ca=colony.ca_pem.decode(),
        command_key=public_pem(colony.keys.command_key).decode(),
        certificate=pair.certificate.decode(),
        key=pair.key.decode(),
    )
    server = Server(AgentGuard(identity, boot_id=BOOT_ID, refusals=Refusals()))
    ebpf_pb2_grpc.add_DebugServiceServicer_to_server(SyntheticAgent(AGENT_ID), server.grpc)
    inspect_pb2_grpc.add_InspectServiceServicer_to_server(inspect_pb2_grpc.InspectServiceServicer(), server.grpc)
    credentials = server_credentials(lambda: pair, clients_of=colony.ca_pem)
    address = await server.start("127.0.0.1:0", services=AGENT_SERVICES, flag="--listen", credentials=credentials)
    try:
        yield address
    finally:
        await server.stop(0)


async def try_as_nobody(doors: list[tuple[str, bytes, list[str]]], files: list[str]) -> dict[str, Any]:
    """What a user who is nobody gets: by door (address, authority or none, methods), and of files."""
    asked = {
        "doors": [{"address": address, "ca": ca.decode(), "methods": methods} for address, ca, methods in doors],
        "files": files,
    }
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(as_nobody.__file__)),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, _ = await child.communicate(json.dumps(asked).encode())
    assert child.returncode == 0
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter: what is in it has to be closed by itself."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@asynchronous
async def test_nobody_gets_nothing(open_folder: Path) -> None:
    """Every call to both servers, by TLS and in plain text, is refused; every file of theirs is closed; health answers."""
    state_dir = open_folder / "colony"
    async with secured_colony(state_dir, refusals_per_s=100_000) as colony, guarded_agent(colony) as agent:
        methods = [rpc.method for rpc in every_rpc(colony.colony._services, fill={})]
        agents = [rpc.method for rpc in every_rpc(AGENT_SERVICES, fill={})]
        files = sorted(path for path in state_dir.rglob("*") if path.is_file())
        assert {"ca.key", "command.key", "control.duckdb"} <= {path.name for path in files}
        found = await try_as_nobody(
            [
                (colony.address, colony.ca_pem, [*methods, *OPEN]),
                (colony.address, b"", [*methods, *OPEN]),
                (colony.agent_address, colony.ca_pem, [*methods, *OPEN]),
                (colony.agent_address, b"", [*methods, *OPEN]),
                (agent, colony.ca_pem, [*agents, *OPEN]),
                (agent, b"", [*agents, *OPEN]),
            ],
            [f"{state_dir}/", *map(str, files)],
        )
    assert found["uid"] != 0
    by_tls, plain, at_agents, plain_at_agents, of_agent, plain_of_agent = found["doors"]
    assert by_tls == {**dict.fromkeys(methods, "UNAUTHENTICATED"), **dict.fromkeys(OPEN, "OK")}
    for door in (plain, at_agents, plain_at_agents):
        assert door == dict.fromkeys([*methods, *OPEN], "UNAVAILABLE")
    for door in (of_agent, plain_of_agent):
        assert door == dict.fromkeys([*agents, *OPEN], "UNAVAILABLE")
    if os.geteuid() == 0:  # else the files are that user's own
        assert found["files"] == ["PermissionError"] * (len(files) + 1)


@asynchronous
async def test_only_the_colony_gets_something_from_an_agent(tmp_path: Path) -> None:
    """Of every RPC of an agent: another agent, a user and nobody are refused; the colony without a signature too."""
    async with secured_colony(tmp_path / "colony") as colony, guarded_agent(colony) as address:
        other = await colony.join("web-2")
        rpcs = every_rpc(AGENT_SERVICES, fill={"*": {"service_name": "nothing", "collector_id": "none", "session_id": "s"}})
        name = agent_dns(AGENT_ID)

        def endpoint(**credentials: Any) -> Endpoint:
            return Endpoint(address=address, ca_pem=colony.ca_pem, server_name=name, **credentials)

        server = colony.keys.server
        signer, target = Signer(colony.keys.command_key), Target(agent_id=AGENT_ID, boot_id=BOOT_ID)
        async with (
            connect(endpoint()) as nobody,
            connect(endpoint(certificate=(other.certificate, other.key))) as another,
            connect(endpoint(certificate=(server.certificate, server.key))) as itself,
        ):
            admin = (("authorization", f"Bearer {await colony.token('admin', 'admin')}"),)

            async def row(rpc: Rpc) -> list[str]:
                signed = ((COMMAND_KEY, signer.sign(target, rpc.method, rpc.request)),)
                elsewhere = ((COMMAND_KEY, signer.sign(Target(agent_id="web-2", boot_id=BOOT_ID), rpc.method, rpc.request)),)
                calls: list[tuple[grpc.aio.Channel, Any]] = [
                    (nobody, ()), (nobody, admin), (another, ()), (another, signed), (itself, ()), (itself, elsewhere),
                    (itself, signed), (itself, signed),
                ]  # fmt: skip
                return [await outcome(channel, rpc, metadata) for channel, metadata in calls]

            for rpc in rpcs:
                *refused, accepted, replayed = await row(rpc)
                assert refused == ["UNREACHABLE"] * 2 + ["UNAUTHENTICATED"] * 2 + ["PERMISSION_DENIED"] * 2, rpc.method
                assert accepted not in ("UNREACHABLE", "UNAUTHENTICATED", "PERMISSION_DENIED"), rpc.method
                assert replayed == "PERMISSION_DENIED", rpc.method
