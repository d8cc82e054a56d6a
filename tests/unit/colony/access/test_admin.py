"""``coral colony admin``: the way back when the last admin's token was lost, for whoever owns the colony's files."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.asynchronous import asynchronous
from support.secured_colony import secured_colony

from coral.client.access import AccessClient
from coral.client.colony import ColonyClient
from coral.colony.founding import FIRST_ADMIN, replace_admin
from coral.model.errors import FailedPrecondition, Unauthenticated


@asynchronous
async def test_a_lost_admin_comes_back(tmp_path: Path) -> None:
    """The colony takes the new token; the one that was lost is revoked, and the act is in the log."""
    folder, handed = tmp_path / "colony", list[str]()
    async with secured_colony(folder) as colony:
        lost = await colony.token(FIRST_ADMIN, "admin")
    await replace_admin(folder, hand_over=handed.append)
    async with secured_colony(folder) as colony:
        async with ColonyClient(colony.endpoint(handed[0])) as client:
            who = await AccessClient(client).who_am_i()
            assert (who.name, list(who.roles)) == (FIRST_ADMIN, ["admin"])
        async with ColonyClient(colony.endpoint(lost)) as client:
            with pytest.raises(Unauthenticated, match="was revoked"):
                await client.agents()
    assert '"action":"ReplaceAdmin"' in (folder / "audit.jsonl").read_text()


@asynchronous
async def test_without_a_colony(tmp_path: Path) -> None:
    """Where there is none, nothing is made and nothing is handed over."""
    handed: list[str] = []
    with pytest.raises(FailedPrecondition, match="There is no colony in"):
        await replace_admin(tmp_path / "none", hand_over=handed.append)
    assert handed == []
    assert not (tmp_path / "none").exists()
