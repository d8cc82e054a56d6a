"""Tokens that have ended: those of an identity provider can be revoked as well, and old ones are forgotten."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import cast

import pytest
from support.identity_provider import identity_provider

from coral.colony.access.identities import AgentDirectory, Identities
from coral.colony.access.jwts import ProviderUsers
from coral.colony.access.put_out import PutOutUsers
from coral.colony.access.tokens import KEPT_NS, TokenBook
from coral.colony.store.database import Database
from coral.colony.store.schema import CONTROL
from coral.model.errors import Unauthenticated
from coral.model.principal import Role
from coral.trust.jwks import KeySource
from coral.trust.oidc import LEEWAY_S, MAX_LIFE_S, Rules
from coral.wire.guard import Call

_S = 1_000_000_000


def _call(token: str) -> Call:
    return Call(method="/x/Y", metadata=(("authorization", f"Bearer {token}"),), address="10.0.0.1:5", secure=True)


def test_what_was_issued_to_a_user_until_now_counts_no_more(tmp_path: Path) -> None:
    """At once, in calls that run too, and after a restart; tokens of others, and ones that come later, do."""

    async def run() -> None:
        with identity_provider() as provider:
            rules = Rules(issuer=provider.url, audience="coral", algorithms=("RS256", "ES256"))
            users = ProviderUsers(rules=rules, keys=KeySource(issuer=provider.url), roles={})
            for life in range(2):
                control = Database(tmp_path / "control.duckdb", CONTROL)
                await control.open()
                put_out = PutOutUsers(control)
                await put_out.load()
                identities = Identities(
                    tokens=TokenBook(control), agents=cast(AgentDirectory, None), jwts=users, put_out=put_out
                )
                other, before = _call(provider.token(sub="bob")), _call(provider.token(sub="ann"))
                if not life:
                    ann = await identities.identify(before)
                    put = await put_out.put_out("oidc:ann")
                    assert put.until_ns - put.at_ns == (MAX_LIFE_S + 2 * LEEWAY_S) * _S
                    with pytest.raises(Unauthenticated, match="oidc:ann were revoked"):
                        await identities.recheck(ann, before)
                with pytest.raises(Unauthenticated, match="oidc:ann were revoked"):
                    await identities.identify(before)
                assert (await identities.identify(other)).name == "oidc:bob"
                await control.close()
            control = Database(None, CONTROL)
            await control.open()
            past = PutOutUsers(control, clock_ns=lambda: time.time_ns() - 2 * LEEWAY_S * _S)
            await past.put_out("oidc:ann")
            past.check(await users.identify(provider.token(sub="ann"), "10.0.0.1:5"))
            await control.close()

    asyncio.run(run())


def test_tokens_that_ended_long_ago_are_forgotten() -> None:
    """By themselves or by hand, when another is made and when the colony starts; the rest stays."""

    async def run() -> None:
        control, now = Database(None, CONTROL), [time.time_ns()]
        await control.open()
        book = TokenBook(control, clock_ns=lambda: now[0])
        await book.load()

        async def make(name: str, life_ns: int) -> None:
            await book.create(name=name, role=Role.VIEWER, life_ns=life_ns, services=(), created_by="x")

        await make("ended", _S)
        await make("revoked", 366 * 86_400 * _S)
        await make("counts", 366 * 86_400 * _S)
        await book.revoke("revoked")
        now[0] += KEPT_NS - _S
        await make("second", _S)
        assert {record.name for record in book.every()} == {"second", "counts", "revoked", "ended"}
        now[0] += 3 * _S
        await make("third", _S)
        again = TokenBook(control, clock_ns=lambda: now[0])
        await again.load()
        for one in (book, again):
            assert {record.name for record in one.every()} == {"third", "second", "counts"}
        now[0] += KEPT_NS + 2 * _S
        await again.load()
        assert [record.name for record in again.every()] == ["counts"]
        await control.close()

    asyncio.run(run())
