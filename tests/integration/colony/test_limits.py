"""Limits of a colony with credentials, over TLS: of users and services, of calls, of addresses that guess."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.member_agent import MemberAgent
from support.running_colony import attach_request, eventually, table
from support.secured_colony import secured_colony

from coral.client.colony import ColonyClient
from coral.client.endpoint import Endpoint
from coral.model.errors import CoralError, ResourceExhausted, Unauthenticated


def test_sessions_of_a_user_and_of_a_service(tmp_path: Path) -> None:
    """Each user has so many, each service so many of all users; who is refused learns who holds them; it is recorded."""

    async def run() -> None:
        limits = {"max_sessions_per_user": 2, "max_sessions_per_service": 3, "slot_wait_s": 0.4}
        async with secured_colony(tmp_path / "colony", **limits) as colony:
            admin = await colony.user("admin", "admin")
            agent = await MemberAgent.join(admin, tmp_path / "agent", "web-1")
            async with (
                agent,
                ColonyClient(await colony.user("ann", "operator"), caller="root") as ann,
                ColonyClient(await colony.user("ben", "operator"), caller="root") as ben,
                ColonyClient(admin) as look,
            ):
                await agent.report()
                await eventually(lambda: _online(admin))
                first = (await ann.attach(attach_request())).session_id
                await ann.attach(attach_request(function="main.Refund"))
                with pytest.raises(ResourceExhausted, match=rf"User 'ann' has 2 sessions.*{first} by ann \(main.Pay"):
                    await ann.attach(attach_request())
                await ben.attach(attach_request())
                with pytest.raises(ResourceExhausted, match=r"Service 'checkout' has 3 sessions.* by ann .* by ben"):
                    await ben.attach(attach_request())
                await ann.detach(first)
                await ben.attach(attach_request())
                assert agent.most == 3
                waiting = asyncio.create_task(ben.attach(attach_request()))
                while not colony.colony._slots.waiting:  # noqa: ASYNC110  (it is over in a moment either way)
                    await asyncio.sleep(0.01)
                waiting.cancel()
                await asyncio.wait([waiting])
                sql = """
                    SELECT principal, decision, outcome FROM audit_log
                    WHERE action = 'AttachUprobe' AND outcome NOT IN ('started', 'ok') ORDER BY sequence
                """

                async def refusals() -> list[tuple[str, ...]]:
                    found = [tuple(row.values()) for row in await table(look, sql)]
                    return found if len(found) == 3 else []

                assert await eventually(refusals) == [
                    ("ann", "deny", "RESOURCE_EXHAUSTED"),
                    ("ben", "deny", "RESOURCE_EXHAUSTED"),
                    ("ben", "allow", "CANCELLED"),  # it waited for a slot
                ]

    asyncio.run(run())


def test_calls_of_a_user(tmp_path: Path) -> None:
    """So many at once and so many in a while; another user is not held up by it."""

    async def run() -> None:
        limits = {"max_calls_per_user": 2, "calls_per_s": 1, "calls_burst": 12}
        async with secured_colony(tmp_path / "colony", **limits) as colony:
            admin = await colony.user("admin", "admin")
            agent = await MemberAgent.join(admin, tmp_path / "agent", "web-1")
            async with agent, ColonyClient(await colony.user("ann", "operator")) as ann, ColonyClient(admin) as other:
                await agent.report()
                await eventually(lambda: _online(admin))
                session_id = (await ann.attach(attach_request(seconds=600))).session_id
                following = [asyncio.create_task(_follow(ann, session_id)) for _ in range(2)]
                await asyncio.sleep(0.3)
                with pytest.raises(ResourceExhausted, match="ann has 2 calls under way"):
                    await ann.session(session_id)
                for task in following:
                    task.cancel()
                await asyncio.wait(following)
                refused = [error for error in [await _asked(ann, session_id) for _ in range(15)] if error is not None]
                assert {type(error) for error in refused} == {ResourceExhausted}
                assert 4 <= len(refused) <= 9
                assert "ann calls too often: 1 calls a second are allowed for long. Try again in 1 s." in str(refused[-1])
                assert (await other.session(session_id)).status == "active"

    asyncio.run(run())


def test_an_address_that_guesses_is_not_listened_to(tmp_path: Path) -> None:
    """After so many wrong tokens not even the right one is looked at from there, for a while."""

    async def run() -> None:
        async with secured_colony(tmp_path / "colony", refusals_per_s=1) as colony:
            good = await colony.user("ann", "viewer")
            async with (
                ColonyClient(colony.endpoint("coral_user_" + "a" * 16 + "_" + "a" * 52)) as wrong,
                ColonyClient(good) as ann,
            ):
                outcomes = [type(await _asked(wrong, "S")) for _ in range(30)]
                assert outcomes.index(ResourceExhausted) in range(20, 25)
                assert set(outcomes[:20]) == {Unauthenticated}
                with pytest.raises(ResourceExhausted, match=r"127\.0\.0\.1 was refused too often"):
                    await ann.agents()
                await asyncio.sleep(1.1)
                await ann.agents()

    asyncio.run(run())


async def _online(admin: Endpoint) -> bool:
    """Whether the agent is there."""
    async with ColonyClient(admin) as client:
        return [agent.status for agent in await client.agents()] == ["online"]


async def _follow(client: ColonyClient, session_id: str) -> None:
    async for _ in client.follow(session_id, after={}, timeout_s=60):
        pass


async def _asked(client: ColonyClient, session_id: str) -> CoralError | None:
    """What a small question ends in; None for an answer."""
    try:
        await client.results(session_id)
    except CoralError as error:
        return error
    return None
