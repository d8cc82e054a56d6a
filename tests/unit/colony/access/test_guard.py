"""The colony's door: who a caller is, what that lets it do, and the record of every no."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from coral.colony.access.actions import Resource
from coral.colony.access.authorise import RoleAuthoriser
from coral.colony.access.guard import ColonyGuard
from coral.colony.access.identities import Identities
from coral.colony.access.tokens import MAX_LIFE_NS, TokenBook
from coral.colony.store.database import Database
from coral.colony.store.schema import CONTROL
from coral.model.errors import (
    CoralError,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
)
from coral.model.principal import Kind, Principal, Role
from coral.model.session import Session, Status
from coral.trust.authority import Authority, Holder, new_key, request_for
from coral.trust.tokens import Token, TokenKind, new_token
from coral.wire._generated.colony.v1 import access_pb2, debug_pb2, enrolment_pb2, inspect_pb2, registry_pb2
from coral.wire.guard import Call

HOUR_NS = 3600 * 1_000_000_000
DEBUG = "/coral.colony.v1.DebugService/"
REGISTRY = "/coral.colony.v1.RegistryService/"


@dataclass
class World:
    """A guard with everything around it, and a clock that a test moves."""

    now_ns: int = 1_800_000_000 * 1_000_000_000
    denied_entries: list[tuple[str, str, str, str]] = field(default_factory=list)
    revoked_agents: set[str] = field(default_factory=set)
    too_many: bool = False
    refused_addresses: list[str] = field(default_factory=list)
    invitation: Token = field(default_factory=lambda: new_token(TokenKind.INVITE))

    async def open(self) -> None:
        self.control = Database(None, CONTROL)
        await self.control.open()
        self.tokens = TokenBook(self.control, clock_ns=lambda: self.now_ns)
        self.authority = Authority.create("colony-1")
        self.guard = ColonyGuard(
            identities=Identities(tokens=self.tokens, agents=self, clock_ns=lambda: self.now_ns),
            limits=self,
            authoriser=RoleAuthoriser(),
            sessions=self,
            refusals=self,
        )

    async def view(self, session_id: str) -> Session:
        if not session_id.startswith("S-"):
            raise NotFound("There is no such session.")
        _, service, owner = session_id.split("-")
        return Session(
            session_id=session_id, service_name=service, function_name="pay", agent_id="", started_at_ns=0,
            expires_at_ns=0, status=Status.ACTIVE, requested_by=owner,
        )  # fmt: skip

    async def denied(self, principal: Principal, action: str, resource: Resource, error: CoralError) -> None:
        self.denied_entries.append((principal.name, action, resource.service_name, error.code))

    def check_agent(self, holder: Holder) -> None:
        if holder.kind != "agent" or holder.id in self.revoked_agents:
            raise Unauthenticated(f"Agent {holder.id} was revoked.")

    def check_invitation(self, text: str) -> str:
        if text != self.invitation.text:
            raise Unauthenticated("This invitation is not known.")
        return self.invitation.token_id

    def check_address(self, call: Call) -> None:
        if self.too_many:
            raise ResourceExhausted("Too many tries.")

    def refused(self, call: Call) -> None:
        self.refused_addresses.append(call.address)

    @contextmanager
    def serving(self, principal: Principal, call: Call) -> Iterator[None]:
        if call.request_bytes > 1000:
            raise ResourceExhausted("Too large.")
        yield

    async def token(self, name: str, role: Role, *, services: tuple[str, ...] = (), life_ns: int = HOUR_NS) -> Token:
        token, _ = await self.tokens.create(name=name, role=role, life_ns=life_ns, services=services, created_by="admin")
        return token

    def certificate(self, agent_id: str, *, authority: Authority | None = None) -> bytes:
        request = request_for(new_key(), agent_id)
        return (authority or self.authority).issue_agent(request, agent_id, lifetime_s=10 * 365 * 86_400.0)

    async def ask(
        self, method: str, request: Any, *, token: Token | str | None = None, certificate: bytes | None = None
    ) -> Any:
        """The principal that gets through, or the code of the refusal."""
        text = token.text if isinstance(token, Token) else token
        metadata = () if text is None else (("authorization", f"Bearer {text}"),)
        raw = request.SerializeToString()
        call = Call(
            method=method,
            metadata=metadata,
            address="10.0.0.9:4",
            certificate=certificate,
            secure=True,
            request_bytes=len(raw),
        )
        try:
            principal = await self.guard.authenticate(call)
            async with self.guard.serving(principal, call):
                await self.guard.authorise(principal, call, request, raw)
        except CoralError as error:
            return error.code
        return principal


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """One, opened."""
    made = World()
    await made.open()
    try:
        yield made
    finally:
        await made.control.close()


def test_a_token_is_its_user() -> None:
    """Name, role, scope and end come from what was kept when it was made; the address from the connection."""

    async def scenario() -> None:
        async with world() as here:
            token = await here.token("ann", Role.OPERATOR, services=("check*",))
            attach = debug_pb2.AttachUprobeRequest(service_name="checkout", function_name="pay")
            assert await here.ask(DEBUG + "AttachUprobe", attach, token=token) == Principal(
                name="ann", kind=Kind.USER, roles=(Role.OPERATOR,), address="10.0.0.9:4", credential_id=token.token_id,
                expires_at_ns=here.now_ns + HOUR_NS, scope=("check*",),
            )  # fmt: skip
            assert here.denied_entries == []

    asyncio.run(scenario())


def test_what_is_no_credential_is_refused_and_recorded() -> None:
    """Nothing, garbage, another's secret, an unknown id, two at once, and plain text are refused, and each has its row."""

    async def scenario() -> None:
        async with world() as here:
            token = await here.token("ann", Role.ADMIN)
            stranger = new_token(TokenKind.USER)
            mixed = Token(kind=TokenKind.USER, token_id=token.token_id, secret=stranger.secret)
            method, request = REGISTRY + "ListAgents", registry_pb2.ListAgentsRequest()
            for shown in (None, "", "garbage", "x" * 10_000, "é", stranger, mixed, token.text.upper()):
                assert await here.ask(method, request, token=shown) == "UNAUTHENTICATED"
            both = await here.ask(method, request, token=token, certificate=here.certificate("web-1"))
            assert both == "UNAUTHENTICATED"
            twice = Call(method=method, metadata=(("authorization", f"Bearer {token.text}"),) * 2, secure=True, address="a")
            plain = Call(method=method, metadata=(("authorization", f"Bearer {token.text}"),), address="a")
            basic = Call(method=method, metadata=(("authorization", f"Basic {token.text}"),), secure=True, address="a")
            for call in (twice, plain, basic):
                with pytest.raises(Unauthenticated) as caught:
                    await here.guard.authenticate(call)
                assert token.secret not in str(caught.value)
            assert here.denied_entries == [("unauthenticated", "ListAgents", "", "UNAUTHENTICATED")] * 12
            assert len(here.refused_addresses) == 12

    asyncio.run(scenario())


def test_an_expired_and_a_revoked_token_say_so() -> None:
    """The message names what happened and the next step, and a running stream hears of it too."""

    async def scenario() -> None:
        async with world() as here:
            token = await here.token("ann", Role.VIEWER)
            call = Call(
                method=DEBUG + "FollowUprobeEvents", metadata=(("authorization", f"Bearer {token.text}"),), secure=True
            )
            ann = await here.guard.authenticate(call)
            await here.guard.recheck(ann, call)
            here.now_ns += HOUR_NS
            for attempt in (here.guard.authenticate(call), here.guard.recheck(ann, call)):
                with pytest.raises(Unauthenticated, match=r"The token of ann has expired\..*`coral login`"):
                    await attempt
            again = await here.token("ann", Role.VIEWER)
            call = Call(method=call.method, metadata=(("authorization", f"Bearer {again.text}"),), secure=True)
            ann = await here.guard.authenticate(call)
            await here.tokens.revoke("ann")
            for attempt in (here.guard.authenticate(call), here.guard.recheck(ann, call)):
                with pytest.raises(Unauthenticated, match=r"The token of ann was revoked\..*`coral login`"):
                    await attempt

    asyncio.run(scenario())


def test_tokens_outlive_the_colony_but_not_in_clear() -> None:
    """After a restart a token counts as before, a revoked one does not, and the file has neither's text."""

    async def scenario() -> None:
        async with world() as here:
            kept, gone = await here.token("ann", Role.VIEWER, services=("a", "b*")), await here.token("bob", Role.ADMIN)
            await here.tokens.revoke("bob")
            again = TokenBook(here.control, clock_ns=lambda: here.now_ns)
            await again.load()
            assert [(one.name, again.status(one)) for one in again.every()] == [
                (one.name, here.tokens.status(one)) for one in here.tokens.every()
            ]
            assert again.identify(kept.text, "x").scope == ("a", "b*")
            with pytest.raises(Unauthenticated, match="revoked"):
                again.identify(gone.text, "x")
            dump = await here.control.read(
                lambda cursor: str(
                    cursor.execute("SELECT token_id, name, digest, services, created_by FROM access_tokens").fetchall()
                )
            )
            assert kept.secret not in dump
            assert gone.secret not in dump

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["", "agent:web-1", "oidc:ann", "a b", "-a", "a" * 129, "é", "a\n", "../x", "<b>"])
def test_names_that_could_be_somebody_elses(name: str) -> None:
    """A token's name is never an agent's, an identity provider's user's, or anything that a terminal would act on."""

    async def scenario() -> None:
        async with world() as here:
            with pytest.raises(InvalidArgument, match="cannot be the name"):
                await here.token(name, Role.VIEWER)

    asyncio.run(scenario())


def test_one_name_one_token() -> None:
    """A second token of a name is refused while the first counts, also of two that are made at one moment."""

    async def scenario() -> None:
        async with world() as here:
            results = await asyncio.gather(
                here.token("ann", Role.VIEWER), here.token("ann", Role.ADMIN), return_exceptions=True
            )
            assert [type(result) for result in results] == [Token, FailedPrecondition]
            for wrong in ({"life_ns": 0}, {"life_ns": MAX_LIFE_NS + 1}, {"services": ("a\n",)}, {"services": ("a",) * 65}):
                with pytest.raises(InvalidArgument):
                    await here.token("bob", Role.VIEWER, **wrong)  # type: ignore[arg-type]
            with pytest.raises(InvalidArgument, match="viewer, operator, investigator, admin"):
                await here.tokens.create(name="bob", role="root", life_ns=1, services=(), created_by="admin")
            with pytest.raises(NotFound, match="'bob'"):
                await here.tokens.revoke("bob")

    asyncio.run(scenario())


def test_scope_bounds_what_a_token_is_good_for() -> None:
    """A scoped token reaches its services and their sessions, gets listings, and nothing of the colony as a whole."""

    async def scenario() -> None:
        async with world() as here:
            token = await here.token("ann", Role.ADMIN, services=("check*",))
            questions: list[tuple[str, Any, bool]] = [
                (DEBUG + "AttachUprobe", debug_pb2.AttachUprobeRequest(service_name="checkout"), True),
                (DEBUG + "AttachUprobe", debug_pb2.AttachUprobeRequest(service_name="vault"), False),
                (DEBUG + "AttachUprobe", debug_pb2.AttachUprobeRequest(), False),
                (DEBUG + "GetDebugResults", debug_pb2.GetDebugResultsRequest(session_id="S-checkout-bob"), True),
                (DEBUG + "DetachUprobe", debug_pb2.DetachUprobeRequest(session_id="S-vault-b"), False),
                (DEBUG + "GetDebugResults", debug_pb2.GetDebugResultsRequest(session_id="nothing"), True),
                (DEBUG + "ListDebugSessions", debug_pb2.ListDebugSessionsRequest(), True),
                (DEBUG + "ListDebugSessions", debug_pb2.ListDebugSessionsRequest(service_name="vault"), False),
                (DEBUG + "ListDebugSessions", debug_pb2.ListDebugSessionsRequest(session_id="S-vault-bob"), False),
                ("/coral.colony.v1.InspectService/QueryDatabase", inspect_pb2.QueryDatabaseRequest(sql="SELECT 1"), False),
                ("/coral.colony.v1.AccessService/CreateToken", access_pb2.CreateTokenRequest(name="x", role="admin"), False),
                ("/coral.colony.v1.AccessService/WhoAmI", access_pb2.WhoAmIRequest(), True),
            ]  # fmt: skip
            for method, request, passes in questions:
                got = await here.ask(method, request, token=token)
                assert got == "PERMISSION_DENIED" or passes, (method, request)
                assert isinstance(got, Principal) == passes, (method, request)

    asyncio.run(scenario())


def test_agents_speak_for_themselves_alone() -> None:
    """An agent does what agents do under its own name; under another's, as a user, or after its end it does nothing."""

    async def scenario() -> None:
        async with world() as here:
            mine = here.certificate("web-1")
            beat = registry_pb2.HeartbeatRequest(agent_id="web-1")
            assert (await here.ask(REGISTRY + "Heartbeat", beat, certificate=mine)).name == "agent:web-1"
            other = registry_pb2.HeartbeatRequest(agent_id="web-2")
            for method in ("RegisterAgent", "Heartbeat"):
                assert await here.ask(REGISTRY + method, other, certificate=mine) == "PERMISSION_DENIED"
            for method, request in (("AttachUprobe", debug_pb2.AttachUprobeRequest()), ("ListDebugSessions", other)):
                assert await here.ask(DEBUG + method, request, certificate=mine) == "PERMISSION_DENIED"
            admin = await here.token("ann", Role.ADMIN)
            assert await here.ask(REGISTRY + "Heartbeat", beat, token=admin) == "PERMISSION_DENIED"
            colony = here.authority.issue_colony(new_key().public_key(), ["localhost"], lifetime_s=1e9)
            for certificate in (
                colony,
                b"",
                b"x" * 100_000,
                b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            ):
                assert await here.ask(REGISTRY + "Heartbeat", beat, certificate=certificate) == "UNAUTHENTICATED"
            here.revoked_agents.add("web-1")
            assert await here.ask(REGISTRY + "Heartbeat", beat, certificate=mine) == "UNAUTHENTICATED"

    asyncio.run(scenario())


def test_an_invitation_lets_a_host_join_and_nothing_else() -> None:
    """Whoever was invited may ask for a certificate; with anything else the invitation is of no use, and vice versa."""

    async def scenario() -> None:
        async with world() as here:
            join, request = "/coral.colony.v1.EnrolmentService/JoinAgent", enrolment_pb2.JoinAgentRequest(agent_id="web-9")
            host = await here.ask(join, request, token=here.invitation)
            assert (host.kind, host.credential_id) == (Kind.INVITED, here.invitation.token_id)
            assert await here.ask(join, request, token=new_token(TokenKind.INVITE)) == "UNAUTHENTICATED"
            assert await here.ask(join, request, token=await here.token("ann", Role.ADMIN)) == "PERMISSION_DENIED"
            listing = registry_pb2.ListAgentsRequest()
            assert await here.ask(REGISTRY + "ListAgents", listing, token=here.invitation) == "PERMISSION_DENIED"

    asyncio.run(scenario())


def test_limits_are_asked_first_and_are_recorded() -> None:
    """Who tried too often is not even looked at, and a request that is too large is not parsed."""

    async def scenario() -> None:
        async with world() as here:
            token = await here.token("ann", Role.ADMIN)
            large = debug_pb2.AttachUprobeRequest(reason="x" * 2000)
            assert await here.ask(DEBUG + "AttachUprobe", large, token=token) == "RESOURCE_EXHAUSTED"
            here.too_many = True
            small = debug_pb2.AttachUprobeRequest()
            assert await here.ask(DEBUG + "AttachUprobe", small, token=token) == "RESOURCE_EXHAUSTED"
            assert here.denied_entries == [
                ("ann", "AttachUprobe", "", "RESOURCE_EXHAUSTED"),
                ("unauthenticated", "AttachUprobe", "", "RESOURCE_EXHAUSTED"),
            ]
            assert here.refused_addresses == []

    asyncio.run(scenario())


def test_a_method_without_a_rule_serves_nobody() -> None:
    """It is found at the start, and should it be called all the same, it is refused to admins too."""

    async def scenario() -> None:
        async with world() as here:
            method = DEBUG + "NewThing"
            with pytest.raises(Internal, match=r"no rule for .*NewThing"):
                here.guard.check_methods([method])
            admin = await here.token("ann", Role.ADMIN)
            assert await here.ask(method, debug_pb2.AttachUprobeRequest(), token=admin) == "INTERNAL"

    asyncio.run(scenario())


def test_a_refusal_that_cannot_be_recorded_is_still_one() -> None:
    """Without a record nothing is let through: the caller hears of the log's trouble instead of the answer."""

    async def scenario() -> None:
        async with world() as here:

            async def broken(*_: object) -> None:
                raise PermissionDenied("The log is full.")

            here.guard._refusals = type("Broken", (), {"denied": staticmethod(broken)})()
            with pytest.raises(PermissionDenied, match="log is full"):
                await here.guard.authenticate(Call(method=DEBUG + "AttachUprobe", secure=True))

    asyncio.run(scenario())
