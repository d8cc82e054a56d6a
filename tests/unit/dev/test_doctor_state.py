"""What `coral doctor` says of what daemons keep."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coral.colony.store.database import Database
from coral.colony.store.schema import CONTROL
from coral.config.settings import AgentSettings, ColonySettings
from coral.dev.checks import Check, Status
from coral.dev.doctor_state import state_checks


def checks(state_dir: Path, *, min_free_bytes: int = 0) -> dict[str, Check]:
    """By name, for a colony and an agent that share a directory."""
    of_colony = ColonySettings(state_dir=state_dir, min_free_bytes=min_free_bytes)
    return {check.name: check for check in state_checks(of_colony, AgentSettings(state_dir=state_dir))}


def private(folder: Path) -> Path:
    """A state directory."""
    folder.mkdir(mode=0o700)
    return folder


def test_a_directory_is_its_owners_and_has_room(tmp_path: Path) -> None:
    """One that is not there yet or private is in order; one that others can enter, or without room, is not."""
    found = [checks(tmp_path / "new" / "er")["state"], checks(private(tmp_path / "mine"))["state"]]
    assert [check.status for check in found] == [Status.OK, Status.OK]
    assert "MiB of free space" in found[1].message
    full = checks(tmp_path / "mine", min_free_bytes=1 << 60)["state"]
    assert (full.status, "min_free_bytes" in full.message) == (Status.FAIL, True)
    (tmp_path / "mine").chmod(0o755)
    opened = checks(tmp_path / "mine")["state"]
    assert (opened.status, opened.message) == (Status.WARN, f"{tmp_path / 'mine'} is open to others (mode 0755).")
    assert f"chmod 700 {tmp_path / 'mine'}" in opened.hint


def test_database_files_are_opened(tmp_path: Path) -> None:
    """None, one in use, a whole one, a damaged one and what was set aside before are told apart."""
    state = private(tmp_path / "state")
    assert checks(state)["database files"].message == f"There are none yet in {state}."

    async def in_use() -> Check:
        database = Database(state / "control.duckdb", CONTROL)
        await database.open()
        try:
            return await asyncio.to_thread(lambda: checks(state)["database files"])
        finally:
            await database.close()

    assert asyncio.run(in_use()).message == "A colony that runs has control.duckdb open."
    assert checks(state)["database files"].message == "control.duckdb can be read."
    (state / "events.duckdb").write_bytes(b"no database" * 1000)
    damaged = checks(state)["database files"]
    assert damaged.status is Status.FAIL
    assert damaged.message.startswith(f"{state / 'events.duckdb'} cannot be read: ")
    (state / "events.duckdb").rename(state / "events.duckdb.broken-20261124T010203")
    aside = checks(state)["database files"]
    assert (aside.status, "damaged and set aside" in aside.message) == (Status.WARN, True)


@pytest.mark.parametrize("name", ["state", "database files", "descriptors"])
def test_what_is_in_order_needs_nothing_done(name: str, tmp_path: Path) -> None:
    """A hint comes with what is not in order, and with nothing else."""
    check = checks(private(tmp_path / "state"))[name]
    assert (check.status, check.hint) == (Status.OK, "")
