"""Users' tokens at a running colony: what they reach, and that they are out within a second, also in what runs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from support.asynchronous import asynchronous
from support.secured_colony import SecuredColony, secured_colony

from coral.client.access import AccessClient
from coral.client.colony import ColonyClient
from coral.colony.book import LiveSession
from coral.colony.feed import Feed
from coral.model.errors import PermissionDenied, Unauthenticated
from coral.model.session import Session, Status
from coral.wire._generated.colony.v1 import debug_pb2

SECOND_NS = 1_000_000_000


def session_of(colony: SecuredColony, session_id: str, service: str, owner: str) -> None:
    """Writes a session that runs, for those who look at it: nobody has to probe anything for that."""
    now_ns = time.time_ns()
    session = Session(
        session_id=session_id, service_name=service, function_name="pay", agent_id="", started_at_ns=now_ns,
        expires_at_ns=now_ns + 60 * SECOND_NS, status=Status.ACTIVE, requested_by=owner,
    )  # fmt: skip
    colony.colony._book.add(LiveSession(session=session, request=b"", feed=Feed()))


async def ends_with(colony: SecuredColony, token: str, session_id: str) -> tuple[str, float]:
    """How a stream of a session ends, and when, by the monotonic clock."""
    async with ColonyClient(colony.endpoint(token)) as client:
        try:
            async for _ in client.follow(session_id, after={}, timeout_s=20):
                pass
        except Unauthenticated as error:
            return str(error), time.monotonic()
    return "ended", time.monotonic()


@asynchronous
async def test_a_stream_ends_with_its_token(tmp_path: Path) -> None:
    """Streams that say nothing end within a second of their token's revocation or expiry, and say why."""
    async with secured_colony(tmp_path / "colony") as colony:
        session_of(colony, "S1", "checkout", "ann")
        tokens = colony.colony._secured.door.tokens  # type: ignore[union-attr]
        revoked = await colony.token("ann", "viewer")
        made, _ = await tokens.create(name="bob", role="viewer", life_ns=2 * SECOND_NS, services=(), created_by="admin")
        until = time.monotonic() + 2
        following = [asyncio.create_task(ends_with(colony, token, "S1")) for token in (revoked, made.text)]
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in following)
        async with ColonyClient(colony.endpoint(await colony.token("root", "admin"))) as client:
            await AccessClient(client).revoke_token("ann")
            since = time.monotonic()
        (ann, ann_ended), (bob, bob_ended) = await asyncio.gather(*following)
        assert "token of ann was revoked" in ann
        assert "token of bob has expired. Get another" in bob
        assert ann_ended - since < 1.5  # twice a second it is asked; the rest is a machine that has other things to do
        assert -0.1 < bob_ended - until < 1.5
        for token in (revoked, made.text):
            async with ColonyClient(colony.endpoint(token)) as client:
                with pytest.raises(Unauthenticated, match="coral login"):
                    await client.agents()


@asynchronous
async def test_a_scoped_token_sees_its_services_alone(tmp_path: Path) -> None:
    """In lists the others are not there; asked for by name or by session they are refused, whatever else the request says."""
    async with secured_colony(tmp_path / "colony") as colony:
        session_of(colony, "S1", "checkout", "ann")
        session_of(colony, "S2", "vault", "ann")
        for role in ("viewer", "admin"):
            token = await colony.token(f"scoped-{role}", role, services=("check*",))
            async with ColonyClient(colony.endpoint(token)) as client:
                assert (await client.session("S1")).service_name == "checkout"
                refused = (
                    client.session("S2"),
                    client.results("S2"),
                    client.call(
                        client._debug.GetDebugResults,
                        debug_pb2.GetDebugResultsRequest(session_id="S2", service_name="checkout"),
                    ),
                    client.detach("S2"),
                    client.attach(debug_pb2.AttachUprobeRequest(service_name="vault", function_name="unseal")),
                    client.query_database("SELECT 1"),
                    client.agents(),
                )
                for call in refused:
                    with pytest.raises(PermissionDenied, match=r"good for check\*, not for"):
                        await call


@asynchronous
async def test_who_am_i(tmp_path: Path) -> None:
    """The colony says whom it takes a caller for: what the credential says, and where it comes from."""
    async with secured_colony(tmp_path / "colony") as colony:
        token = await colony.token("ann", "operator", services=("a", "b"))
        async with ColonyClient(colony.endpoint(token), caller="root@evil") as client:
            who = await AccessClient(client).who_am_i()
        assert (who.name, who.kind, list(who.roles), list(who.services)) == ("ann", "user", ["operator"], ["a", "b"])
        assert who.HasField("expires_at")
        assert who.address.startswith("127.0.0.1:")
        async with ColonyClient(colony.agent_endpoint(await colony.join("web-1"))) as client:
            agent = await AccessClient(client).who_am_i()
        assert (agent.name, agent.kind, list(agent.roles)) == ("agent:web-1", "agent", [])
