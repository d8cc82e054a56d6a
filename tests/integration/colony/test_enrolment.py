"""Agents that belong to a colony, and those that do not: real TLS both ways, the real doors of both sides."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.asynchronous import asynchronous
from support.member_agent import MemberAgent
from support.running_colony import attach_request, ended, eventually, stored, table
from support.secured_colony import SecuredColony, secured_colony

from coral.agent.enrolment import enrolled
from coral.agent.identity import Identity
from coral.client.agent import AgentClient
from coral.client.channel import connect
from coral.client.colony import ColonyClient
from coral.client.endpoint import Endpoint
from coral.model.errors import (
    CoralError,
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from coral.trust.authority import Authority, KeyPair, agent_dns, holder_of, new_key, private_pem, request_for
from coral.trust.colony_keys import ColonyKeys
from coral.trust.commands import Signer, Target, new_command_key, public_pem
from coral.trust.invitation import invitation_text
from coral.trust.tokens import TokenKind, new_token
from coral.wire._generated.colony.v1 import enrolment_pb2, enrolment_pb2_grpc, registry_pb2
from coral.wire._generated.mesh.v1 import ebpf_pb2
from coral.wire.errors import from_rpc
from coral.wire.metadata import COMMAND_KEY
from coral.wire.server import Server
from coral.wire.tls import server_credentials


@dataclass(slots=True)
class Scene:
    """A colony with agents that have joined, and an admin.

    Attributes:
        colony: The colony.
        admin: Its admin's client.
        agents: By id.
    """

    colony: SecuredColony
    admin: ColonyClient
    agents: dict[str, MemberAgent]

    async def audit(self, where: str, **names: Any) -> list[dict[str, Any]]:
        """Records of the audit log that match, oldest first, once there are some."""
        query = (
            f"SELECT principal, action, agent_id, decision, outcome, reason FROM audit_log WHERE {where} ORDER BY sequence"
        )
        found: list[dict[str, Any]] = await eventually(lambda: table(self.admin, query))
        return found

    def to_agent(self, agent_id: str, pair: KeyPair | None = None, *, ca: bytes | None = None) -> Endpoint:
        """An agent, as somebody reaches it who shows a certificate; the colony's own unless another is given."""
        shown = pair or self.colony.keys.server
        return Endpoint(
            address=self.agents[agent_id].address,
            ca_pem=ca or self.colony.ca_pem,
            certificate=(shown.certificate, shown.key),
            server_name=agent_dns(agent_id),
        )


@asynccontextmanager
async def scene(folder: Path, agent_ids: Sequence[str] = ("web-1",), **settings: Any) -> AsyncIterator[Scene]:
    """Runs one; every agent is online."""
    async with secured_colony(folder / "colony", **settings) as colony:
        endpoint = await colony.user("ann", "admin")
        agents = {}
        async with ColonyClient(endpoint) as admin:
            try:
                for agent_id in agent_ids:
                    agent = agents[agent_id] = await MemberAgent.join(endpoint, folder / agent_id, agent_id)
                    await agent.start()
                    await agent.report()
                await eventually(lambda: _online(admin, len(agent_ids)))
                yield Scene(colony, admin, agents)
            finally:
                for agent in agents.values():
                    await agent.kill()


async def _online(client: ColonyClient, count: int) -> bool:
    return sum(agent.status == "online" for agent in await client.agents()) == count


async def stop_collector(endpoint: Endpoint, *metadata: tuple[str, str | bytes]) -> None:
    """Asks an agent to stop a collector, with nothing but what is given; raises what came of it."""
    raw = ebpf_pb2.StopUprobeCollectorRequest(collector_id="C1").SerializeToString()
    async with connect(endpoint) as channel:
        call: Any = channel.unary_unary("/coral.mesh.v1.DebugService/StopUprobeCollector")
        try:
            await call(raw, timeout=5.0, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, peer="The agent") from None


def command(key: bytes, agent: MemberAgent, *, age_s: float = 0.0) -> tuple[str, bytes]:
    """The signature of the request that ``stop_collector`` sends."""
    raw = ebpf_pb2.StopUprobeCollectorRequest(collector_id="C1").SerializeToString()
    target = Target(agent_id=agent.agent_id, boot_id=agent.boot_id)
    issued_at_ns = time.time_ns() - round(age_s * 1e9)
    envelope = Signer(key).sign(target, "/coral.mesh.v1.DebugService/StopUprobeCollector", raw, issued_at_ns=issued_at_ns)
    return COMMAND_KEY, envelope


@asynchronous
async def test_from_invitation_to_session(tmp_path: Path) -> None:
    """An agent that was invited joins, registers, and is probed by its colony over mutual TLS; each step is in the audit log
    under the name of who took it. The invitation stands in none of them.
    """
    async with scene(tmp_path) as s:
        attached = await s.admin.attach(attach_request())
        s.agents["web-1"].only.emit([5, 6, 7])
        await stored(s.admin, attached.session_id, 3)
        await s.admin.detach(attached.session_id)
        assert (await ended(s.admin, attached.session_id)).status == "detached"
        records = await s.audit("action IN ('CreateInvite', 'JoinAgent', 'RegisterAgent') AND outcome = 'ok'")
        assert [(each["principal"].partition(":")[0], each["action"], each["agent_id"]) for each in records] == [
            ("ann", "CreateInvite", ""),
            ("invite", "JoinAgent", "web-1"),
            ("agent", "RegisterAgent", "web-1"),
        ]
        assert "coral_invite" not in (tmp_path / "colony" / "audit.jsonl").read_text()


@asynchronous
async def test_posing_as_another_agent(tmp_path: Path) -> None:
    """An agent that says to be another one is refused in every RPC that takes an agent's name, and so is an agent that asks
    for what users may; each time with a record that says who it was.
    """
    async with scene(tmp_path, ("web-1", "web-2")) as s:
        services = [registry_pb2.ServiceInfo(name="checkout", instances=1)]
        async with ColonyClient(s.agents["web-1"].endpoint()) as web_1:
            attempts = {
                "RegisterAgent": lambda: web_1.register(
                    registry_pb2.RegisterAgentRequest(agent_id="web-2", address="127.0.0.1:1", boot_id="B", services=services)
                ),
                "Heartbeat": lambda: web_1.heartbeat(registry_pb2.HeartbeatRequest(agent_id="web-2", epoch=1)),
                "RenewAgent": lambda: web_1.renew(enrolment_pb2.RenewAgentRequest(agent_id="web-2"), timeout_s=5.0),
                "RevokeAgent": lambda: web_1.revoke_agent(enrolment_pb2.RevokeAgentRequest(agent_id="web-2")),
                "CreateInvite": lambda: web_1.invite(enrolment_pb2.CreateInviteRequest()),
                "JoinAgent": lambda: web_1.join(enrolment_pb2.JoinAgentRequest(agent_id="web-2"), timeout_s=5.0),
                "AttachUprobe": lambda: web_1.attach(attach_request()),
                "ListAgents": web_1.agents,
            }
            for action, attempt in attempts.items():
                with pytest.raises(PermissionDenied, match=f"agent:web-1 may not {action}"):
                    await attempt()
        records = await s.audit("decision = 'deny'")
        assert [(each["principal"], each["action"]) for each in records] == [("agent:web-1", action) for action in attempts]
        assert {agent.agent_id: agent.status for agent in await s.admin.agents()} == {"web-1": "online", "web-2": "online"}


@asynchronous
async def test_address_that_leads_to_another_agent(tmp_path: Path) -> None:
    """An agent that gives another one's address gets no command carried out there: the colony wants its own certificate."""
    async with scene(tmp_path, ("web-1", "web-2")) as s:
        request = registry_pb2.RegisterAgentRequest(
            agent_id="web-1", address=s.agents["web-2"].address, boot_id=s.agents["web-1"].boot_id,
            services=[registry_pb2.ServiceInfo(name="checkout", instances=1)],
        )  # fmt: skip
        await s.agents["web-1"].kill()  # else it would say where it really is with its next heartbeat
        async with ColonyClient(s.agents["web-1"].endpoint()) as web_1:
            await web_1.register(request)
        with pytest.raises(Unavailable, match="web-1"):
            await s.admin.attach(attach_request(agent_id="web-1"))
        assert s.agents["web-2"].started == []
        (record,) = await s.audit("action = 'AttachUprobe' AND outcome <> 'started'")
        assert record["outcome"] == "UNAVAILABLE"


@asynchronous
async def test_commands_of_nobody(tmp_path: Path) -> None:
    """Over the colony's own certificate an agent does nothing that is unsigned, signed by another colony, held back for more
    than a minute, or sent twice. It refuses each, and the colony's audit log says so a heartbeat later.
    """
    async with scene(tmp_path) as s:
        agent, key = s.agents["web-1"], s.colony.keys.command_key
        endpoint = s.to_agent("web-1")
        foreign, _ = new_command_key()
        once = command(key, agent)
        with pytest.raises(CoralError, match="no collector 'C1'"):  # it counts, and was carried out
            await stop_collector(endpoint, once)
        for metadata, words in (
            ((), "without the colony's signature"),
            ((command(foreign, agent),), "not signed by the colony"),
            ((command(key, agent, age_s=75),), "7[5-9].* s behind this agent's clock"),
            ((once,), "replay"),
        ):
            with pytest.raises(PermissionDenied, match=words):
                await stop_collector(endpoint, *metadata)
        assert agent.stopped == ["C1"]
        records = await s.audit("action = 'AgentRefused'")
        assert {(each["principal"], each["agent_id"], each["decision"], each["outcome"]) for each in records} == {
            ("agent:web-1", "web-1", "deny", "PERMISSION_DENIED")
        }
        assert "StopUprobeCollector of colony:test from 127.0.0.1" in records[0]["reason"]


@asynchronous
async def test_others_at_an_agents_door(tmp_path: Path) -> None:
    """Another agent of the same colony is refused at an agent's door, which the colony hears of; a colony of the same name
    with another authority, somebody without a certificate and plain text do not even get a connection.
    """
    async with scene(tmp_path, ("web-1", "web-2")) as s:
        other = Authority.create("test")
        key = new_key()
        hostile = KeyPair(
            certificate=other.issue_colony(key.public_key(), ["127.0.0.1"], lifetime_s=60), key=private_pem(key)
        )
        with pytest.raises(Unauthenticated, match="This is agent 'web-2', not the colony"):
            await stop_collector(s.to_agent("web-1", s.agents["web-2"].membership.pair()))
        good = s.to_agent("web-1")
        for endpoint in (
            s.to_agent("web-1", hostile),
            s.to_agent("web-1", hostile, ca=other.pair.certificate),
            Endpoint(address=good.address, ca_pem=good.ca_pem, server_name=good.server_name),
            Endpoint(address=good.address),
        ):
            with pytest.raises(Unavailable):
                await stop_collector(endpoint, command(s.colony.keys.command_key, s.agents["web-1"]))
        assert s.agents["web-1"].stopped == []
        (record,) = await s.audit("action = 'AgentRefused'")
        assert (record["principal"], record["outcome"]) == ("agent:web-1", "UNAUTHENTICATED")


@asynchronous
async def test_the_colonys_ports(tmp_path: Path) -> None:
    """The port of the agents takes no connection without a certificate of the colony's authority, no plain text, and no agent
    with a user's token as well; the port of the users takes no plain text. Nor does an agent speak to a colony of another
    authority at its colony's address.
    """
    async with scene(tmp_path) as s:
        agents, users, ca = s.colony.agent_address, s.colony.address, s.colony.ca_pem
        token = await s.colony.token("bob", "admin")
        mine = s.agents["web-1"].endpoint()
        other = Authority.create("test")
        for endpoint, error in (
            (Endpoint(address=agents, ca_pem=ca, token=token), Unavailable),
            (Endpoint(address=agents), Unavailable),
            (Endpoint(address=users), Unavailable),
            (Endpoint(address=users, ca_pem=ca), Unauthenticated),
            (Endpoint(address=agents, ca_pem=ca, certificate=mine.certificate, token=token), Unauthenticated),
            (
                Endpoint(
                    address=agents, ca_pem=other.pair.certificate, certificate=mine.certificate, server_name=mine.server_name
                ),
                Unavailable,
            ),
        ):
            async with ColonyClient(endpoint) as client:
                with pytest.raises(error):
                    await client.agents()


@asynchronous
async def test_revoked(tmp_path: Path) -> None:
    """Within two seconds a revoked agent is offline, its session has ended as agent_gone, its probe is detached, and what it
    sends is refused.
    """
    async with scene(tmp_path) as s:
        agent = s.agents["web-1"]
        attached = await s.admin.attach(attach_request())
        begun = time.monotonic()
        done = await s.admin.revoke_agent(enrolment_pb2.RevokeAgentRequest(agent_id="web-1", reason="stolen"))
        session = await ended(s.admin, attached.session_id, within_s=2.0)
        assert (done.certificates, done.collectors) == (1, 1)
        assert (session.status, session.reason_code) == ("failed", "agent_gone")
        assert session.reason == "Agent 'web-1' was revoked by ann."
        assert agent.only.ended
        assert [each.status for each in await s.admin.agents()] == ["offline"]
        async with ColonyClient(agent.endpoint()) as client:
            with pytest.raises(Unauthenticated, match="revoked"):
                await client.heartbeat(registry_pb2.HeartbeatRequest(agent_id="web-1", epoch=1))
        assert time.monotonic() - begun < 2.0
        with pytest.raises(Unavailable):
            await s.admin.attach(attach_request(agent_id="web-1"))
        records = await s.audit("action = 'RevokeAgent'")
        assert [(each["principal"], each["reason"], each["outcome"]) for each in records][-1] == ("ann", "stolen", "ok")


@asynchronous
async def test_renewal_without_a_break(tmp_path: Path) -> None:
    """A session goes on over the renewal of its agent's certificate, and beyond the end of the one that it began with: one
    registration, one stream, every event stored; and the agent's port shows the new certificate.
    """
    async with scene(tmp_path, agent_certificate_s=3) as s:
        agent = s.agents["web-1"]
        first = holder_of(agent.membership.identity.certificate.encode())
        attached = await s.admin.attach(attach_request())
        emitted = 0
        while time.time_ns() < first.expires_at_ns + 500_000_000:
            agent.only.emit([7])
            emitted += 1
            await asyncio.sleep(0.1)
        session = await stored(s.admin, attached.session_id, emitted)
        assert (session.status, session.ledger.stored) == ("active", emitted)
        second = holder_of(agent.membership.identity.certificate.encode())
        assert second.serial != first.serial
        assert agent.streamed == [0]
        assert len(await s.audit("action = 'RegisterAgent' AND outcome = 'ok'")) == 1
        assert [each.status for each in await s.admin.agents()] == ["online"]
        assert await table(s.admin, "SELECT action, reason FROM audit_log WHERE decision = 'deny'") == []
        async with connect(s.to_agent("web-1")) as channel:  # a new connection
            client = AgentClient(channel, peer="web-1", sign=None)
            with pytest.raises(PermissionDenied, match="signature"):
                await client.stop("C1", timeout_s=5.0)


@asynchronous
async def test_what_join_takes(tmp_path: Path) -> None:
    """An invitation is taken from a file too; the one by which an agent came is passed over later, a new one after a
    revocation makes it a member again. An agent keeps its name; without an invitation it is told where to get one.
    """
    async with secured_colony(tmp_path / "colony") as colony:
        folder, kept = tmp_path / "agent", tmp_path / "invitation"

        async def join(text: str, agent_id: str = "web-1") -> Identity:
            return await enrolled(folder=folder, agent_id=agent_id, colony=colony.address, join=text)

        with pytest.raises(FailedPrecondition, match="coral agent invite"):
            await join("")
        async with ColonyClient(await colony.user("ann", "admin")) as admin:
            for _ in range(2):
                kept.write_text((await admin.invite(enrolment_pb2.CreateInviteRequest())).token + "\n")
                first = await join(f"@{kept}")
                assert await join(f"@{kept}") == first == await join("")
                with pytest.raises(FailedPrecondition, match="joined its colony as 'web-1'"):
                    await join("", "web-2")
                await admin.revoke_agent(enrolment_pb2.RevokeAgentRequest(agent_id="web-1"))
            used = kept.read_text()
            kept.write_text((await admin.invite(enrolment_pb2.CreateInviteRequest(agent_id="db-1"))).token)
            with pytest.raises(FailedPrecondition, match="for agent 'db-1'"):
                await join(f"@{kept}")
            folder = tmp_path / "another"
            with pytest.raises(Unauthenticated, match="not known"):
                await join(used)
            with pytest.raises(InvalidArgument, match="cannot be read"):
                await join(f"@{tmp_path / 'none'}")
        assert not (folder / "identity.json").exists()


class HostileColony(enrolment_pb2_grpc.EnrolmentServiceServicer):
    """A colony that answers with whatever a test wants, over TLS that an invited agent trusts."""

    def __init__(self) -> None:
        self.keys = ColonyKeys.create("test", ["127.0.0.1"], server_lifetime_s=60)
        self.answer = enrolment_pb2.JoinAgentResponse()

    async def JoinAgent(self, request: Any, context: Any) -> enrolment_pb2.JoinAgentResponse:
        """The answer."""
        return self.answer


@asynchronous
async def test_a_colony_that_answers_nonsense(tmp_path: Path) -> None:
    """An agent keeps nothing of a colony that answers its request to join with another agent's certificate, one for another
    key or of another authority, or with none.
    """
    colony, other = HostileColony(), Authority.create("test")
    server = Server()
    enrolment_pb2_grpc.add_EnrolmentServiceServicer_to_server(colony, server.grpc)
    address = await server.start(
        "127.0.0.1:0",
        services=["coral.colony.v1.EnrolmentService"],
        flag="--listen",
        credentials=server_credentials(lambda: colony.keys.server),
    )
    invitation = invitation_text(new_token(TokenKind.INVITE), colony.keys.authority.pair.certificate)
    stranger = request_for(new_key(), "web-1")
    answers = [
        (b"", b""),
        (b"\xff\xfe", b""),
        (colony.keys.authority.issue_agent(stranger, "web-1", lifetime_s=60), public_pem(colony.keys.command_key)),
        (colony.keys.authority.issue_agent(stranger, "web-2", lifetime_s=60), public_pem(colony.keys.command_key)),
        (other.issue_agent(stranger, "web-1", lifetime_s=60), public_pem(colony.keys.command_key)),
        (colony.keys.server.certificate, public_pem(colony.keys.command_key)),
    ]
    try:
        for certificate, key in answers:
            colony.answer = enrolment_pb2.JoinAgentResponse(
                certificate=certificate, colony_id="test", command_key=key, agent_port=1
            )
            with pytest.raises(FailedPrecondition, match="answered with"):
                await enrolled(folder=tmp_path / "agent", agent_id="web-1", colony=address, join=invitation)
    finally:
        await server.stop(0)
    assert list((tmp_path / "agent").iterdir()) == []
