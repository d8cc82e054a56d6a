"""Every RPC of a colony against every kind of caller: exactly the cells of the table get in.

The rows come from the descriptors of the services that the colony serves, the expectation from the table below alone. An RPC
that is not in it fails the test, as does one whose rule in the colony says something else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from support.every_rpc import Rpc, every_rpc, outcome
from support.identity_provider import AUDIENCE, IdentityProvider, identity_provider
from support.secured_colony import SecuredColony, secured_colony

from coral.client.channel import connect
from coral.client.endpoint import Endpoint
from coral.colony.access.actions import ACTIONS
from coral.trust.authority import KeyPair, new_key, private_pem, request_for

ROLES = ("viewer", "operator", "investigator", "admin")

# Who gets in: the least role, or "agent" for agents under their own name, "invited" for hosts with an invitation,
# "anybody" for whoever has a credential of a user or an agent.
EXPECTED = {
    "coral.colony.v1.DebugService": {
        "AttachUprobe": "operator",
        # Of a session that is not there, so nobody's: who may end everybody's gets to know that. Operators end their own.
        "DetachUprobe": "admin",
        "UpdateProbeFilter": "admin",
        "QueryUprobeEvents": "viewer",
        "ListDebugSessions": "viewer",
        "GetDebugResults": "viewer",
        "FollowUprobeEvents": "viewer",
    },
    "coral.colony.v1.RegistryService": {
        "RegisterAgent": "agent",
        "Heartbeat": "agent",
        "ListAgents": "viewer",
        "ListServices": "viewer",
    },
    "coral.colony.v1.InspectService": {
        "QueryDatabase": "investigator",
        "ListFunctions": "viewer",
        "ExplainFunction": "viewer",
    },
    "coral.colony.v1.AccessService": {
        "WhoAmI": "anybody",
        "CreateToken": "admin",
        "ListTokens": "admin",
        "RevokeToken": "admin",
    },
    "coral.colony.v1.PolicyService": {
        "CheckPolicies": "admin",
        "ExplainPolicy": "user",
        "ListApprovals": "viewer",
        "DecideApproval": "viewer",
    },
    "coral.colony.v1.AuditService": {
        "QueryAudit": "admin",
        "ExportAudit": "admin",
        "VerifyAudit": "admin",
        "PurgeData": "admin",
    },
    "coral.colony.v1.EnrolmentService": {
        "CreateInvite": "admin",
        "JoinAgent": "invited",
        "RenewAgent": "agent",
        "RevokeAgent": "admin",
    },
}

# Requests that reach their handlers and change nothing, or nothing that matters here.
FILL = {
    "*": {"service_name": "checkout", "function_name": "pay", "agent_id": "nobody", "session_id": "none"},
    "RegisterAgent": {"agent_id": "web-1"},
    "Heartbeat": {"agent_id": "web-1"},
    "RenewAgent": {"agent_id": "web-1"},
    "PurgeData": {"dry_run": True},
}

IN, UNKNOWN, FORBIDDEN, UNREACHABLE = "gets in", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNREACHABLE"


def expected(rule: str, caller: str) -> str:
    """What becomes of a call."""
    if caller.startswith("plain text") or caller == "a token at the agents' port":
        return UNREACHABLE  # there is no connection at all
    kind, _, role = caller.partition(": ")
    if kind in ("token", "identity provider"):
        allowed = rule in ("user", "anybody") or (rule in ROLES and role in ROLES and ROLES.index(role) >= ROLES.index(rule))
    elif kind == "agent":
        allowed = rule == "anybody" or (rule == "agent" and role == "itself")
    elif kind == "invited":
        allowed = rule == "invited"
    else:
        return UNKNOWN
    return IN if allowed else FORBIDDEN


class Callers:
    """A channel and metadata for each kind of caller, by name."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[grpc.aio.Channel, tuple[tuple[str, str], ...]]] = {}

    def add(self, name: str, channel: grpc.aio.Channel, *credentials: str) -> None:
        """A caller that shows these values of ``authorization``."""
        self.found[name] = (channel, tuple(("authorization", credential) for credential in credentials))


@asynccontextmanager
async def callers(colony: SecuredColony, provider: IdentityProvider) -> AsyncIterator[Callers]:
    """Everybody."""
    async with AsyncExitStack() as stack:

        async def channel(endpoint: Endpoint) -> grpc.aio.Channel:
            return await stack.enter_async_context(connect(endpoint))

        made = Callers()
        tls = await channel(colony.endpoint())
        _without_a_credential_that_counts(made, tls, provider)
        for role in ROLES:
            made.add(f"token: {role}", tls, f"Bearer {await colony.token(f'a-{role}', role)}")
            made.add(f"identity provider: {role}", tls, f"Bearer {provider.token(groups=[role])}")
        made.add("identity provider: no role", tls, f"Bearer {provider.token(groups=['chess'])}")
        made.add("more than one token", tls, *[f"Bearer {await colony.token('twice', 'admin')}"] * 2)

        secured = colony.colony._secured
        assert secured is not None
        short, _ = await secured.door.tokens.create(
            name="short", role="admin", life_ns=50_000_000, services=(), created_by="test"
        )
        made.add("an expired token", tls, f"Bearer {short.text}")
        revoked = await colony.token("revoked", "admin")
        await secured.door.tokens.revoke("revoked")
        made.add("a revoked token", tls, f"Bearer {revoked}")

        web_1, web_2, web_3 = [await colony.join(name) for name in ("web-1", "web-2", "web-3")]
        made.add("agent: itself", await channel(colony.agent_endpoint(web_1)))
        made.add("agent: another one", await channel(colony.agent_endpoint(web_2)))
        made.add("an agent with a token too", await channel(colony.agent_endpoint(web_2)), "Bearer x")
        made.add("a revoked agent", await channel(colony.agent_endpoint(web_3)))
        await secured.enrolment.revoke("web-3")
        key = new_key()
        never = secured.keys.keys.authority.issue_agent(request_for(key, "web-1"), "web-1", lifetime_s=60)
        pair = KeyPair(certificate=never, key=private_pem(key))
        made.add("a certificate that the colony did not give out", await channel(colony.agent_endpoint(pair)))
        colonys = colony.agent_endpoint(colony.keys.server)
        made.add("the colony's own certificate", await channel(colonys))

        invitation, _ = await secured.enrolment.invite(by="test", lifetime_s=60)
        made.add("invited: a host", tls, f"Bearer {invitation.text}")

        plain = await channel(Endpoint(address=colony.address))
        made.add("plain text", plain)
        made.add("plain text with an admin's token", plain, f"Bearer {await colony.token('plain', 'admin')}")
        made.add("plain text at the agents' port", await channel(Endpoint(address=colony.agent_address)))
        at_agents = Endpoint(address=colony.agent_address, ca_pem=colony.ca_pem)
        made.add("a token at the agents' port", await channel(at_agents), f"Bearer {await colony.token('lost', 'admin')}")
        await asyncio.sleep(0.06)  # what was made to expire has
        yield made


def _without_a_credential_that_counts(made: Callers, tls: grpc.aio.Channel, provider: IdentityProvider) -> None:
    now = int(time.time())
    made.add("nobody", tls)
    made.add("an empty token", tls, "Bearer ")
    made.add("garbage", tls, "Bearer garbage")
    made.add("a password", tls, "Basic YWRtaW46YWRtaW4=")
    for name, token in {
        "expired": provider.token(groups=["admin"], exp=now - 60),
        "for another audience": provider.token(groups=["admin"], aud="grafana"),
        "of another issuer": provider.token(groups=["admin"], iss="https://evil.example.com"),
        "with alg none": provider.unsigned(),
        "signed by HMAC with the public key": provider.confused(),
        "with an unknown key": provider.token(groups=["admin"], header={"kid": "other"}),
        "tampered with": provider.tampered(groups=["admin"]),
        "without an end": provider.token(groups=["admin"], exp=None),
    }.items():
        made.add(f"JWT {name}", tls, f"Bearer {token}")


async def fill_in(state_dir: Path, provider: IdentityProvider) -> dict[str, dict[str, str]]:
    """The matrix as the colony fills it in: by RPC and caller."""
    settings = {
        "oidc": {
            "issuer": provider.url,
            "audience": AUDIENCE,
            "roles": {role: role for role in ROLES},
        },
        "refusals_per_s": 100_000,
        "calls_per_s": 100_000,
        "calls_burst": 100_000,
    }
    async with secured_colony(state_dir, **settings) as colony, callers(colony, provider) as everybody:
        served = every_rpc(colony.colony._services, fill=FILL)
        return {rpc.method: await _row(rpc, everybody) for rpc in served}


async def _row(rpc: Rpc, everybody: Callers) -> dict[str, str]:
    codes = await asyncio.gather(*(outcome(channel, rpc, shown) for channel, shown in everybody.found.values()))
    refused = (UNKNOWN, FORBIDDEN, UNREACHABLE)
    return {caller: code if code in refused else IN for caller, code in zip(everybody.found, codes, strict=True)}


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, str]]]:
    """The one matrix that the tests look at."""
    with identity_provider() as provider:
        yield asyncio.run(fill_in(tmp_path_factory.mktemp("matrix") / "colony", provider))


def test_every_rpc_is_in_the_table(matrix: dict[str, dict[str, str]]) -> None:
    """What the colony serves, what has a rule in it, and what is expected here are the same RPCs."""
    table = {f"/{service}/{name}" for service, rpcs in EXPECTED.items() for name in rpcs}
    assert set(matrix) == table == set(ACTIONS)


@pytest.mark.parametrize("method", [f"/{service}/{name}" for service, rpcs in EXPECTED.items() for name in rpcs])
def test_exactly_the_allowed_cells_pass(matrix: dict[str, dict[str, str]], method: str) -> None:
    """Of every caller there is, those of the table get in; the others are told what they lack."""
    service, _, name = method.removeprefix("/").partition("/")
    row = matrix[method]
    assert len(row) >= 30
    assert row == {caller: expected(EXPECTED[service][name], caller) for caller in row}
