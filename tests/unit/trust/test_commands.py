"""Signed commands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coral.model.errors import FailedPrecondition, PermissionDenied, ResourceExhausted, Unavailable
from coral.trust import commands
from coral.trust.commands import Signer, Target, Verifier, new_command_key

METHOD = "/coral.mesh.v1.DebugService/StartUprobeCollector"
TARGET = Target(agent_id="web-1", boot_id="LIFE1")
PRIVATE, PUBLIC = new_command_key()
NOW_NS = 1_800_000_000_000_000_000


class Clock:
    """A wall clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ns = NOW_NS

    def __call__(self) -> int:
        return self.now_ns


def verifier(clock: Clock | None = None) -> Verifier:
    """Of the agent, in its present life."""
    return Verifier(PUBLIC, TARGET, clock_ns=clock or Clock())


def test_once() -> None:
    """A command is accepted once; sent again it is a replay, while the next one is accepted."""
    agent = verifier()
    first = Signer(PRIVATE).sign(TARGET, METHOD, b"request", issued_at_ns=NOW_NS)
    agent.accept(first, METHOD, b"request")
    with pytest.raises(PermissionDenied, match="replay"):
        agent.accept(first, METHOD, b"request")
    agent.accept(Signer(PRIVATE).sign(TARGET, METHOD, b"request", issued_at_ns=NOW_NS), METHOD, b"request")


@pytest.mark.parametrize("age_s", [-60, 0, 60])
def test_never_twice_at_any_time(age_s: int) -> None:
    """Wherever in the window a command was issued, no later moment exists at which it is accepted again."""
    clock = Clock()
    agent = verifier(clock)
    envelope = Signer(PRIVATE).sign(TARGET, METHOD, b"", issued_at_ns=NOW_NS - age_s * 10**9)
    agent.accept(envelope, METHOD, b"")
    for _ in range(200):
        clock.now_ns += 10**9
        agent.accept(Signer(PRIVATE).sign(TARGET, METHOD, b"", issued_at_ns=clock.now_ns), METHOD, b"")
        with pytest.raises(PermissionDenied):
            agent.accept(envelope, METHOD, b"")


@pytest.mark.parametrize(("age_s", "words"), [(61.5, "61.5 s behind"), (-61.5, "61.5 s ahead of")])
def test_expired(age_s: float, words: str) -> None:
    """A command from outside of the window is refused, and the error says by how much the clocks differ."""
    envelope = Signer(PRIVATE).sign(TARGET, METHOD, b"", issued_at_ns=NOW_NS - round(age_s * 1e9))
    with pytest.raises(PermissionDenied, match=words):
        verifier().accept(envelope, METHOD, b"")


def test_for_one_agent_one_request() -> None:
    """A command to another agent, for another method or with another request is refused; one to an earlier life of the agent
    is to be sent again.
    """
    signer = Signer(PRIVATE)
    other = signer.sign(Target(agent_id="web-2", boot_id="LIFE1"), METHOD, b"request", issued_at_ns=NOW_NS)
    with pytest.raises(PermissionDenied, match="'web-2', this is 'web-1'"):
        verifier().accept(other, METHOD, b"request")
    mine = signer.sign(TARGET, METHOD, b"request", issued_at_ns=NOW_NS)
    for method, request in [(METHOD, b"another"), ("/coral.mesh.v1.DebugService/StopUprobeCollector", b"request")]:
        with pytest.raises(PermissionDenied, match="another request"):
            verifier().accept(mine, method, request)
    earlier = signer.sign(Target(agent_id="web-1", boot_id="LIFE0"), METHOD, b"request", issued_at_ns=NOW_NS)
    with pytest.raises(Unavailable, match="earlier life"):
        verifier().accept(earlier, METHOD, b"request")


def test_foreign_colony() -> None:
    """A command that another colony signed is refused, whatever it says."""
    foreign, _ = new_command_key()
    envelope = Signer(foreign).sign(TARGET, METHOD, b"", issued_at_ns=NOW_NS)
    with pytest.raises(PermissionDenied, match="not signed by the colony that this agent joined"):
        verifier().accept(envelope, METHOD, b"")


@given(st.data())
def test_any_change_is_seen(data: st.DataObject) -> None:
    """A command of which any byte was changed, added or removed is refused, and so is anything that is none."""
    envelope = Signer(PRIVATE).sign(TARGET, METHOD, b"", issued_at_ns=NOW_NS)
    at = data.draw(st.integers(0, len(envelope) - 1))
    changed = data.draw(
        st.one_of(
            st.integers(1, 255).map(lambda flip: envelope[:at] + bytes([envelope[at] ^ flip]) + envelope[at + 1 :]),
            st.binary(min_size=1, max_size=9).map(lambda more: envelope + more),
            st.just(envelope[:at]),
            st.binary(max_size=300),
        )
    )
    with pytest.raises(PermissionDenied):
        verifier().accept(changed, METHOD, b"")


def test_form() -> None:
    """What the colony's key has signed, but is no command of this form, is refused."""
    key = Signer(PRIVATE)._key
    for payload in (b"[]", b"{}", b'{"agent_id":1,"boot_id":"","issued_at_ns":0,"method":"","nonce":"","request_sha256":""}'):
        with pytest.raises(PermissionDenied, match="form"):
            verifier().accept(key.sign(b"coral-command-v1\n" + payload) + payload, METHOD, b"")
    with pytest.raises(PermissionDenied, match="not signed"):
        verifier().accept(key.sign(b"{}") + b"{}", METHOD, b"")


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A colony that sends more than can be remembered is refused, and served again two minutes later."""
    monkeypatch.setattr(commands, "MAX_NONCES", 3)
    clock = Clock()
    agent, signer = verifier(clock), Signer(PRIVATE)
    for _ in range(3):
        agent.accept(signer.sign(TARGET, METHOD, b"", issued_at_ns=NOW_NS), METHOD, b"")
    with pytest.raises(ResourceExhausted):
        agent.accept(signer.sign(TARGET, METHOD, b"", issued_at_ns=NOW_NS), METHOD, b"")
    clock.now_ns += 121 * 10**9
    agent.accept(signer.sign(TARGET, METHOD, b"", issued_at_ns=clock.now_ns), METHOD, b"")


def test_keys() -> None:
    """A file that holds no key of the right kind is refused."""
    for key in (b"", b"damaged", PUBLIC):
        with pytest.raises(FailedPrecondition):
            Signer(key)
    for key in (b"", PRIVATE):
        with pytest.raises(FailedPrecondition):
            Verifier(key, TARGET)
