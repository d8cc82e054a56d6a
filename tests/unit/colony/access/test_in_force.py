"""Policies come into force when they are written, and broken ones change nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.policies import ask

from coral.colony.access.in_force import PoliciesInForce
from coral.model.errors import FailedPrecondition

FORBID = 'forbid (principal, action == Action::"AttachUprobe", resource);'


def folder(tmp_path: Path, text: str) -> Path:
    """A folder with one file of policies."""
    path = tmp_path / "policies"
    path.mkdir(exist_ok=True)
    (path / "a.cedar").write_text(text)
    return path


def attaches(in_force: PoliciesInForce) -> bool:
    """Whether an operator may attach."""
    return in_force.policies.decide(ask("AttachUprobe", "operator", service="web")).allowed


def test_a_folder_comes_into_force_and_is_read_again(tmp_path: Path) -> None:
    """What is written, changed or removed there counts after the next look."""

    async def scenario() -> list[bool]:
        in_force = PoliciesInForce(folder(tmp_path, FORBID))
        seen = [attaches(in_force)]
        await in_force.open()
        seen.append(attaches(in_force))
        folder(tmp_path, "// nothing any more\n")
        await in_force.look()
        seen.append(attaches(in_force))
        folder(tmp_path, FORBID)
        await in_force.look()
        seen.append(attaches(in_force))
        (tmp_path / "policies" / "a.cedar").unlink()
        await in_force.look()
        return [*seen, attaches(in_force)]

    assert asyncio.run(scenario()) == [True, False, True, False, True]


def test_broken_policies_leave_the_ones_before_in_force(tmp_path: Path) -> None:
    """The faults are kept for who asks, and go when the file is in order again."""

    async def scenario() -> None:
        path = folder(tmp_path, FORBID)
        in_force = PoliciesInForce(path)
        await in_force.open()
        since_ns = in_force.since_ns
        folder(tmp_path, "permit (principal, actoin, resource);")
        await in_force.look()
        assert (attaches(in_force), in_force.since_ns) == (False, since_ns)
        assert in_force.faults == ("a.cedar:1: found an invalid variable in the policy scope: actoin",)
        (path / "a.cedar").chmod(0o666)
        await in_force.look()
        assert "can be written by others" in in_force.faults[0]
        folder(tmp_path, "")
        (path / "a.cedar").chmod(0o644)
        await in_force.look()
        assert (attaches(in_force), in_force.faults) == (True, ())

    asyncio.run(scenario())


def test_whether_the_folder_is_in_force_is_reported_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At first, when it breaks, and when it is in order again."""
    monkeypatch.setattr("coral.colony.access.in_force.LOOK_EVERY_S", 0.01)

    async def scenario() -> list[bool]:
        in_force = PoliciesInForce(folder(tmp_path, FORBID))
        await in_force.open()
        told: asyncio.Queue[bool] = asyncio.Queue()
        running = asyncio.create_task(in_force.run(told.put))
        seen = []
        for text in ("broken", FORBID, ""):
            async with asyncio.timeout(5):
                seen.append(await told.get())
            folder(tmp_path, text)
        running.cancel()
        return seen

    assert asyncio.run(scenario()) == [True, False, True]


@pytest.mark.parametrize("text", [None, "permit (principal, actoin, resource);"], ids=["no folder", "broken"])
def test_a_colony_does_not_start_without_its_policies(tmp_path: Path, text: str | None) -> None:
    """What they forbid would be allowed: the error names what is wrong."""
    path = tmp_path / "policies" if text is None else folder(tmp_path, text)
    with pytest.raises(FailedPrecondition, match="cannot be read" if text is None else r"are broken: a\.cedar:1"):
        asyncio.run(PoliciesInForce(path).open())


def test_a_colony_without_a_folder_goes_by_the_default_policies() -> None:
    """There is nothing to look at then."""

    async def scenario() -> PoliciesInForce:
        in_force, told = PoliciesInForce(None), []

        async def report(healthy: bool) -> None:
            told.append(healthy)

        await in_force.open()
        async with asyncio.timeout(1):
            await in_force.run(report)
        assert told == [True]
        return in_force

    assert attaches(asyncio.run(scenario()))
