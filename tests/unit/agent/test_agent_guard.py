"""The agent's door."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from google.protobuf.message import Message
from structlog.testing import capture_logs
from support.asynchronous import asynchronous

from coral.agent.guard import AgentGuard
from coral.agent.identity import Identity
from coral.agent.refusals import Refusals
from coral.model.errors import PermissionDenied, Unauthenticated, Unavailable
from coral.model.principal import Kind
from coral.trust.authority import Authority, new_key, private_pem, request_for
from coral.trust.commands import Signer, Target, new_command_key, public_pem
from coral.wire._generated.mesh.v1 import ebpf_pb2
from coral.wire.guard import Call
from coral.wire.metadata import COMMAND_KEY

METHOD = "/coral.mesh.v1.DebugService/StopUprobeCollector"
REQUEST = ebpf_pb2.StopUprobeCollectorRequest(collector_id="C1")
RAW = REQUEST.SerializeToString()
AUTHORITY = Authority.create("01COLONY")
COMMAND_KEY_PEM, _ = new_command_key()
TARGET = Target(agent_id="web-1", boot_id="LIFE1")


def colony_certificate(authority: Authority = AUTHORITY, *, lifetime_s: float = 3600.0) -> bytes:
    """The certificate that a colony shows."""
    return authority.issue_colony(new_key().public_key(), [], lifetime_s=lifetime_s)


def agent_certificate(agent_id: str) -> bytes:
    """The certificate of an agent of the same colony."""
    return AUTHORITY.issue_agent(request_for(new_key(), agent_id), agent_id, lifetime_s=3600)


def guard(refusals: Refusals | None = None) -> AgentGuard:
    """That of web-1, in its present life."""
    key = new_key()
    identity = Identity(
        agent_id="web-1",
        colony_id="01COLONY",
        invite_id="i",
        agent_port=8083,
        ca=AUTHORITY.pair.certificate.decode(),
        command_key=public_pem(COMMAND_KEY_PEM).decode(),
        certificate=AUTHORITY.issue_agent(request_for(key, "web-1"), "web-1", lifetime_s=3600).decode(),
        key=private_pem(key).decode(),
    )
    return AgentGuard(identity, boot_id="LIFE1", refusals=refusals or Refusals())


def call(certificate: bytes | None, *envelopes: bytes, secure: bool = True, method: str = METHOD) -> Call:
    """A call over TLS."""
    metadata = tuple((COMMAND_KEY, envelope) for envelope in envelopes)
    return Call(method=method, metadata=metadata, address="10.0.0.9:40000", certificate=certificate, secure=secure)


def signed(request: Message = REQUEST, *, key: bytes = COMMAND_KEY_PEM, target: Target = TARGET, age_s: float = 0.0) -> bytes:
    """The signature of a command."""
    issued_at_ns = time.time_ns() - round(age_s * 1e9)
    return Signer(key).sign(target, METHOD, request.SerializeToString(), issued_at_ns=issued_at_ns)


@asynchronous
async def test_its_colony_comes_in() -> None:
    """A command of the colony passes, as the colony's; so does a stream of it for as long as the certificate is good."""
    door, shown = guard(), colony_certificate()
    principal = await door.authenticate(call(shown))
    assert (principal.name, principal.kind) == ("colony:01COLONY", Kind.COLONY)
    await door.authorise(principal, call(shown, signed()), REQUEST, RAW)
    await door.recheck(principal, call(shown))


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (None, "No certificate"),
        (agent_certificate("web-1"), "agent 'web-1', not the colony"),
        (agent_certificate("coral://colony/01COLONY"), "not the colony"),
        (colony_certificate(Authority.create("02OTHER")), "colony '02OTHER', not the colony"),
        (colony_certificate(lifetime_s=-1.0), "expired"),
        (AUTHORITY.pair.certificate, "names nobody"),
        (b"garbage", "names nobody"),
    ],
)
@asynchronous
async def test_nobody_else_comes_in(shown: bytes | None, words: str) -> None:
    """Whoever shows no certificate, an agent's (its own too), another colony's or one that has expired is refused, logged and
    reported.
    """
    refusals = Refusals()
    door = guard(refusals)
    with capture_logs() as logs, pytest.raises(Unauthenticated, match=words):
        await door.authenticate(call(shown, signed()))
    assert [(entry["event"], entry["code"], entry["address"]) for entry in logs] == [
        ("refused", "UNAUTHENTICATED", "10.0.0.9:40000")
    ]
    (told,) = refusals.take()
    assert (told.method, told.principal, told.host, told.code) == (METHOD, "unauthenticated", "10.0.0.9", "UNAUTHENTICATED")


@asynchronous
async def test_plain_text_does_not_come_in() -> None:
    """A certificate counts only where TLS has verified it."""
    with pytest.raises(Unauthenticated):
        await guard().authenticate(call(colony_certificate(), secure=False))


@pytest.mark.parametrize(
    ("envelopes", "error", "words"),
    [
        (list, PermissionDenied, "without the colony's signature"),
        (lambda: [signed(), signed()], PermissionDenied, "without the colony's signature"),
        (lambda: [b""], PermissionDenied, "length"),
        (lambda: [signed(key=new_command_key()[0])], PermissionDenied, "not signed by the colony"),
        (lambda: [signed(target=Target(agent_id="web-2", boot_id="LIFE1"))], PermissionDenied, "for agent 'web-2'"),
        (lambda: [signed(target=Target(agent_id="web-1", boot_id="LIFE0"))], Unavailable, "earlier life"),
        (lambda: [signed(age_s=90)], PermissionDenied, r"9\d\.\d s behind"),
        (lambda: [signed(ebpf_pb2.StopUprobeCollectorRequest(collector_id="C2"))], PermissionDenied, "another request"),
    ],
)
@asynchronous
async def test_commands_that_do_not_count(envelopes: Callable[[], list[bytes]], error: type[Exception], words: str) -> None:
    """Over the colony's own connection too a command is refused that is unsigned, signed twice or by somebody else, for
    another agent or life, too old, or for another request; and it is reported under the colony's name.
    """
    refusals = Refusals()
    door, shown = guard(refusals), colony_certificate()
    principal = await door.authenticate(call(shown))
    with pytest.raises(error, match=words):
        await door.authorise(principal, call(shown, *envelopes()), REQUEST, RAW)
    assert [told.principal for told in refusals.take()] == ["colony:01COLONY"]


@asynchronous
async def test_replay() -> None:
    """The same command a second time is refused, over whichever connection; many of these are one report with their number,
    and a few lines of the log.
    """
    refusals = Refusals()
    door, shown, envelope = guard(refusals), colony_certificate(), signed()
    principal = await door.authenticate(call(shown))
    await door.authorise(principal, call(shown, envelope), REQUEST, RAW)
    with capture_logs() as logs:
        for _ in range(100):
            with pytest.raises(PermissionDenied, match="replay"):
                await door.authorise(principal, call(shown, envelope), REQUEST, RAW)
    assert [entry["times"] for entry in logs] == [1, 2, 4, 8, 16, 32, 64]
    (told,) = refusals.take()
    assert (told.count, told.code) == (100, "PERMISSION_DENIED")


@asynchronous
async def test_streams_end_with_the_certificate() -> None:
    """A stream that outlives the colony's certificate is not served on."""
    now_ns = time.time_ns()
    door = guard()
    door._clock_ns = lambda: now_ns
    shown = colony_certificate()
    principal = await door.authenticate(call(shown))
    await door.recheck(principal, call(shown))
    now_ns += 3601 * 10**9
    with pytest.raises(Unauthenticated, match="expired"):
        await door.recheck(principal, call(shown))
