"""Which hosts belong to a colony."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.asynchronous import asynchronous

from coral.colony.enrolment import Enrolment
from coral.colony.store.database import Database
from coral.colony.store.schema import CONTROL
from coral.model.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, Unauthenticated
from coral.trust.authority import Authority, holder_of, new_key, request_for

AUTHORITY = Authority.create("01COLONY")
KEY = new_key()


class Clock:
    """A wall clock that a test can put forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> int:
        return time.time_ns() + round(self.ahead_s * 1e9)


@asynccontextmanager
async def enrolment(path: Path | None = None, *, clock_ns: Callable[[], int] = time.time_ns) -> AsyncIterator[Enrolment]:
    """One over a file, or in memory."""
    database = Database(path, CONTROL)
    await database.open()
    try:
        found = Enrolment(database, AUTHORITY, agent_lifetime_s=3600.0, clock_ns=clock_ns)
        await found.load()
        yield found
    finally:
        await database.close()


async def joined(colony: Enrolment, agent_id: str = "web-1", *, key: object = KEY) -> bytes:
    """The certificate of an agent that joined with an invitation of its own."""
    token, _ = await colony.invite(by="ann", lifetime_s=600)
    invite_id = colony.check_invitation(token.text)
    return await colony.join(invite_id, agent_id, request_for(key, agent_id))  # type: ignore[arg-type]


@asynchronous
async def test_an_invitation_is_good_once() -> None:
    """One host joins with it, also when it has to ask twice with the same key; no other host does, under any name."""
    async with enrolment() as colony:
        token, invitation = await colony.invite(by="ann", lifetime_s=600)
        assert colony.check_invitation(token.text) == invitation.invite_id
        for _ in range(2):
            certificate = await colony.join(token.token_id, "web-1", request_for(KEY, "web-1"))
            colony.check_agent(holder_of(certificate))
        for agent_id in ("web-1", "web-2"):
            with pytest.raises(Unauthenticated, match="used already"):
                await colony.join(token.token_id, agent_id, request_for(new_key(), agent_id))


@asynchronous
async def test_many_hosts_with_one_invitation() -> None:
    """Of hosts that come at the same moment with one invitation, exactly one joins."""
    async with enrolment() as colony:
        token, _ = await colony.invite(by="ann", lifetime_s=600)
        names = [f"web-{number}" for number in range(20)]
        answers = await asyncio.gather(
            *(colony.join(token.token_id, name, request_for(new_key(), name)) for name in names), return_exceptions=True
        )
        assert sum(not isinstance(answer, Unauthenticated) for answer in answers) == 1
        assert sum(colony.is_enrolled(name) for name in names) == 1


@asynchronous
async def test_invitations_that_do_not_count() -> None:
    """Garbage, a token of another kind, one changed in a character and one that has expired are refused, without repeating
    the secret.
    """
    clock = Clock()
    async with enrolment(clock_ns=clock) as colony:
        token, _ = await colony.invite(by="ann", lifetime_s=60)
        other = "b" if token.secret[-2] == "a" else "a"
        changed = f"coral_invite_{token.token_id}_{token.secret[:-2]}{other}{token.secret[-1]}"
        for text in ("", "garbage", token.text.replace("invite", "user"), changed):
            with pytest.raises(Unauthenticated) as refused:
                colony.check_invitation(text)
            assert token.secret[:8] not in str(refused.value)
        clock.ahead_s = 60.0
        with pytest.raises(Unauthenticated, match="expired"):
            colony.check_invitation(token.text)
        with pytest.raises(Unauthenticated, match="expired"):
            await colony.join(token.token_id, "web-1", request_for(KEY, "web-1"))
        for lifetime_s in (0.0, -1.0, 8 * 86_400.0):
            with pytest.raises(InvalidArgument):
                await colony.invite(by="ann", lifetime_s=lifetime_s)


@asynchronous
async def test_a_name_is_taken_until_it_is_revoked() -> None:
    """No other host joins under the name of an agent that is enrolled; after a revocation it does, and the old certificate
    stays refused.
    """
    async with enrolment() as colony:
        old = await joined(colony)
        with pytest.raises(FailedPrecondition, match="coral agent revoke web-1"):
            await joined(colony, key=new_key())
        assert await colony.revoke("web-1") == 1
        new = await joined(colony, key=new_key())
        colony.check_agent(holder_of(new))
        with pytest.raises(Unauthenticated, match="revoked"):
            colony.check_agent(holder_of(old))


@asynchronous
async def test_an_invitation_for_one_name() -> None:
    """An invitation that names an agent lets in nobody else, and is not used up by who tries."""
    async with enrolment() as colony:
        token, _ = await colony.invite(by="ann", lifetime_s=600, agent_id="db-1")
        with pytest.raises(FailedPrecondition, match="'db-1', not for 'web-1'"):
            await colony.join(token.token_id, "web-1", request_for(KEY, "web-1"))
        colony.check_agent(holder_of(await colony.join(token.token_id, "db-1", request_for(KEY, "db-1"))))


@asynchronous
async def test_a_revoked_agent_stays_out() -> None:
    """It can neither renew nor use the invitation by which it came, nor one that waits for it; a second revocation finds
    nothing.
    """
    async with enrolment() as colony:
        token, _ = await colony.invite(by="ann", lifetime_s=600)
        waiting, _ = await colony.invite(by="ann", lifetime_s=600, agent_id="web-1")
        certificate = await colony.join(token.token_id, "web-1", request_for(KEY, "web-1"))
        await colony.revoke("web-1")
        with pytest.raises(Unauthenticated):
            colony.check_agent(holder_of(certificate))
        with pytest.raises(Unauthenticated):
            await colony.renew("web-1", request_for(KEY, "web-1"))
        for each in (token, waiting):
            with pytest.raises(Unauthenticated):
                await colony.join(each.token_id, "web-1", request_for(KEY, "web-1"))
        with pytest.raises(NotFound):
            await colony.revoke("web-1")


@asynchronous
async def test_renewal() -> None:
    """After a renewal the certificate before counts too, for connections that are there; the one before that no more."""
    async with enrolment() as colony:
        first = await joined(colony)
        certificates = [first, *[await colony.renew("web-1", request_for(new_key(), "web-1")) for _ in range(2)]]
        with pytest.raises(Unauthenticated):
            colony.check_agent(holder_of(certificates[0]))
        for certificate in certificates[1:]:
            colony.check_agent(holder_of(certificate))
        assert await colony.revoke("web-1") == 2
        for certificate in certificates:
            with pytest.raises(Unauthenticated):
                colony.check_agent(holder_of(certificate))


@asynchronous
async def test_what_is_not_an_agent_of_this_colony() -> None:
    """A certificate of another authority, one that the colony has not noted, and its own are no agents'; an expired one is
    said to be.
    """
    other = Authority.create("01COLONY")
    async with enrolment() as colony:
        await joined(colony)
        for certificate in (
            other.issue_agent(request_for(KEY, "web-1"), "web-1", lifetime_s=60),
            AUTHORITY.issue_agent(request_for(KEY, "web-1"), "web-1", lifetime_s=60),
            AUTHORITY.issue_colony(KEY.public_key(), [], lifetime_s=60),
        ):
            with pytest.raises(Unauthenticated):
                colony.check_agent(holder_of(certificate))
    clock = Clock()
    async with enrolment(clock_ns=clock) as colony:
        certificate = await joined(colony)
        clock.ahead_s = 3600.0
        with pytest.raises(Unauthenticated, match="expired"):
            colony.check_agent(holder_of(certificate))
        assert not colony.is_enrolled("web-1")


@asynchronous
async def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    """What was invited, used, renewed and revoked is so after a restart; the file holds no token."""
    path = tmp_path / "control.duckdb"
    async with enrolment(path) as colony:
        token, _ = await colony.invite(by="ann", lifetime_s=600)
        used, _ = await colony.invite(by="ann", lifetime_s=600)
        good = await colony.join(used.token_id, "web-1", request_for(KEY, "web-1"))
        renewed = await colony.renew("web-1", request_for(KEY, "web-1"))
        gone = await joined(colony, "web-2")
        await colony.revoke("web-2")
    assert token.secret.encode() not in path.read_bytes()
    async with enrolment(path) as colony:
        for certificate in (good, renewed):
            colony.check_agent(holder_of(certificate))
        with pytest.raises(Unauthenticated, match="revoked"):
            colony.check_agent(holder_of(gone))
        with pytest.raises(Unauthenticated, match="used already"):
            await colony.join(used.token_id, "web-3", request_for(new_key(), "web-3"))
        colony.check_agent(holder_of(await colony.join(token.token_id, "web-3", request_for(KEY, "web-3"))))


@asynchronous
async def test_invitations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are not more open invitations than a number; those that ended make room."""
    monkeypatch.setattr("coral.colony.enrolment._MAX_OPEN", 2)
    clock = Clock()
    async with enrolment(clock_ns=clock) as colony:
        for lifetime_s in (60.0, 600.0):
            await colony.invite(by="ann", lifetime_s=lifetime_s)
        with pytest.raises(ResourceExhausted):
            await colony.invite(by="ann", lifetime_s=600)
        clock.ahead_s = 60.0
        await colony.invite(by="ann", lifetime_s=600)
