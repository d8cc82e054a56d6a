"""Daemons as children: a real colony, since it needs no privilege."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from coral.dev import supervisor
from coral.dev.child import Child
from coral.dev.privileges import missing_capabilities
from coral.model.errors import CoralError, FailedPrecondition


async def start(tmp_path: Path, *options: str) -> Child:
    """Starts a colony on a free port."""
    arguments = [
        "colony",
        "start",
        "--insecure",
        "--listen",
        "127.0.0.1:0",
        "--state-dir",
        str(tmp_path / "colony"),
        *options,
    ]
    return await Child.start("colony", arguments, environment={}, log=tmp_path / "colony.log")


def test_a_child_says_where_it_is_and_ends_in_order(tmp_path: Path) -> None:
    """Its ready line arrives over the pipe, and SIGTERM ends it with 0."""

    async def run() -> None:
        child = await start(tmp_path)
        facts = await child.ready(60)
        assert facts["ready"] is True
        assert facts["colony"].startswith("127.0.0.1:")
        await child.stop()
        assert child.process.returncode == 0

    asyncio.run(run())


def test_a_child_that_fails_to_start_is_told_from_its_log(tmp_path: Path) -> None:
    """Its exit status, and the end of what it wrote."""

    async def run() -> None:
        child = await start(tmp_path, "--config", str(tmp_path / "none.yaml"))
        with pytest.raises(CoralError) as caught:
            await child.ready(60)
        assert caught.value.message == "The colony ended with exit status 2."
        assert f"{tmp_path}/none.yaml does not exist." in caught.value.hint

    asyncio.run(run())


def test_a_child_that_is_killed_is_named_with_the_signal(tmp_path: Path) -> None:
    """The end that nobody asked for is described."""

    async def run() -> None:
        child = await start(tmp_path)
        child.kill()
        await child.process.wait()
        assert child.ended().message == "The colony was ended by SIGKILL."

    asyncio.run(run())


@pytest.mark.parametrize("flag", ["--colony-port", "--agent-port"])
def test_a_taken_port_is_named_with_its_flag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flag: str) -> None:
    """Before anything is started."""
    monkeypatch.setattr(supervisor, "check_privileges", lambda _: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {"colony_port": 0, "agent_port": 0, flag[2:].replace("-", "_"): port}
        with pytest.raises(FailedPrecondition) as caught:
            asyncio.run(supervisor.run_dev(state_dir=tmp_path / "state", auth=False, verbosity=0, **ports))
    assert caught.value.message == f"Port {port} cannot be had: Address already in use."
    assert caught.value.hint == f"Choose another with {flag}, or 0 for any free one."
    assert not (tmp_path / "state").exists()


def test_missing_capabilities() -> None:
    """Each that is missing is named; CAP_SYS_ADMIN stands for what was split from it."""
    assert missing_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n") == []
    assert missing_capabilities("CapEff:\t0000000000000000\n") == [
        "CAP_BPF",
        "CAP_PERFMON",
        "CAP_SYS_PTRACE",
        "CAP_DAC_READ_SEARCH",
    ]
    assert missing_capabilities(f"CapEff:\t{1 << 21 | 1 << 19:016x}\n") == ["CAP_DAC_READ_SEARCH"]
