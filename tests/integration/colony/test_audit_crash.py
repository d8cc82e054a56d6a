"""The audit log of a colony that is killed, and of one whose disk is full; and who may read what a colony writes."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.colony_process import colony_process
from support.running_colony import attach_request, eventually, running_colony
from support.synthetic_agent import SyntheticAgent

from coral.client.audit import AuditClient
from coral.client.colony import ColonyClient
from coral.model.errors import Unavailable
from coral.trust.audit_files import Snapshot
from coral.trust.chain import parse
from coral.wire._generated.colony.v1 import audit_pb2

CALLS = 200


def test_killed_in_the_middle_of_calls(tmp_path: Path) -> None:
    """After kill -9 both copies hold, and every act that was answered is in both: none answered is missing."""

    async def run() -> None:
        process, colony = await colony_process(tmp_path)
        answered: list[str] = []

        async def act(client: ColonyClient, number: int) -> None:
            try:
                await client.services(f"service-{number}")
            except Unavailable:
                return  # killed before it was answered
            answered.append(f"service-{number}")
            if len(answered) == CALLS // 2:
                process.kill()

        clients = [ColonyClient(colony, caller=f"user-{number}") for number in range(8)]
        await asyncio.gather(*(act(clients[number % 8], number) for number in range(CALLS)))
        for client in clients:
            await client.close()
        await process.wait()
        assert CALLS // 2 <= len(answered) < CALLS
        copied = Counter[str]()
        with Snapshot([tmp_path / "audit.jsonl"]) as snapshot:
            copied.update(parse(line).service_name for line in snapshot.lines() if line.endswith(b"}"))
        assert [name for name in answered if not copied[name]] == []
        async with running_colony(tmp_path) as again, ColonyClient(again) as client:
            found = await AuditClient(client).verify()
            assert found.ok, found
            assert found.table.last_sequence == found.copy.last_sequence
            query = audit_pb2.QueryAuditRequest(action="ListServices")
            rows = Counter([record.service_name async for record in AuditClient(client).query(query, limit=0)])
            assert [name for name in answered if not rows[name]] == []

    asyncio.run(run())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB of its own."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def _fill(folder: Path) -> None:
    """Takes all room."""
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def test_a_full_disk(small_disk: Path) -> None:
    """An attach is refused within a second, with the reason, and reaches no agent; what runs stays; then it goes on."""

    async def run() -> None:
        async with SyntheticAgent() as agent, running_colony(small_disk) as colony, ColonyClient(colony) as client:
            await agent.report_to(colony)
            await client.attach(attach_request())
            kept = agent.only.collector_id
            await asyncio.to_thread(_fill, small_disk)
            # What room there is left in the files' last pages is used up first.
            with pytest.raises(Unavailable):
                for _ in range(50):
                    await client.attach(attach_request("pricing"))
            started, before = len(agent.started), time.monotonic()
            with pytest.raises(Unavailable, match=r"No space left on device|cannot be used now"):
                await client.attach(attach_request("pricing"))
            assert time.monotonic() - before < 1.0
            assert len(agent.started) == started
            assert kept not in agent.stopped
            (small_disk / "filler").unlink()

            async def again() -> bool:
                try:
                    found = await AuditClient(client).verify()
                except Unavailable:
                    return False
                assert found.ok, found
                return True

            await eventually(again)

    asyncio.run(run())


def test_nobody_else_can_read_what_a_colony_writes(tmp_path: Path) -> None:
    """Every file that a colony makes has mode 0600, every folder 0700, while it runs and after a crash; no core is dumped."""
    state_dir = tmp_path / "state"

    async def run() -> None:
        process, colony = await colony_process(state_dir)
        async with SyntheticAgent() as agent, ColonyClient(colony) as client:
            await agent.report_to(colony)
            await client.attach(attach_request())
            agent.only.emit([5] * 100)
            await eventually(lambda: _events(client))
            found = {path.name: path.stat().st_mode & 0o777 for path in state_dir.rglob("*")}
            assert {"control.duckdb", "events.duckdb", "audit.jsonl", "audit.key"} <= set(found)
            assert [name for name in found if name.endswith(".wal")]
            assert set(found.values()) == {0o600}, found
            assert state_dir.stat().st_mode & 0o777 == 0o700
            assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == (0, 0)
            process.kill()
            await process.wait()

    asyncio.run(run())


async def _events(client: ColonyClient) -> bool:
    found, _ = await client.query_database("SELECT count(*) AS events FROM uprobe_events")
    return bool(found.to_pylist()[0]["events"])
