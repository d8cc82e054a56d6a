"""The way in to a colony, put together from its settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.asynchronous import asynchronous
from support.secured_colony import secured_colony

from coral.client.access import AccessClient
from coral.client.colony import ColonyClient
from coral.colony.access.door import Door
from coral.colony.access.limits import CallLimits
from coral.colony.audit import Audit
from coral.colony.store.database import Database
from coral.colony.store.schema import CONTROL
from coral.config.settings import IdentityProvider
from coral.model.errors import InvalidArgument


@pytest.mark.parametrize("issuer", ["http://id.example.com", "ldap://id.example.com", "id.example.com"])
def test_a_provider_whose_keys_anybody_could_change(issuer: str) -> None:
    """A colony does not start with a provider that is reached in plain text; the message names the settings."""
    control = Database(None, CONTROL)
    with pytest.raises(InvalidArgument, match=r"neither https nor on this host\. Correct oidc\.issuer or oidc\.keys_url"):
        Door(
            control=control,
            audit=Audit(control),
            agents=None,  # type: ignore[arg-type]
            limits=CallLimits(calls_per_s=1, calls_burst=1, calls_at_once=1, refusals_per_s=1),
            authoriser=None,  # type: ignore[arg-type]
            sessions=None,  # type: ignore[arg-type]
            provider=IdentityProvider(issuer=issuer, audience="coral"),
        )


@asynchronous
async def test_what_the_log_says_of_tokens(tmp_path: Path) -> None:
    """Who made which token for whom, and who ended it, is in the audit log before it is done; no token is."""
    async with secured_colony(tmp_path / "colony") as colony:
        async with ColonyClient(colony.endpoint(await colony.token("root", "admin"))) as client:
            access = AccessClient(client)
            made = await access.create_token("ann", role="operator", life_ns=3600 * 10**9, services=("check*",))
            await access.revoke_token("ann")
        log = (tmp_path / "colony" / "audit.jsonl").read_text()
    assert made.token.rpartition("_")[2] not in log
    for action, reason in (("CreateToken", "for ann: operator, check*, for 3,600 s"), ("RevokeToken", "ann")):
        told = [line for line in log.splitlines() if f'"action":"{action}"' in line]
        assert [f'"outcome":"{outcome}"' in line for line, outcome in zip(told, ("started", "ok"), strict=True)] == [
            True,
            True,
        ]
        assert all('"principal":"root"' in line and f'"reason":"{reason}"' in line for line in told)
