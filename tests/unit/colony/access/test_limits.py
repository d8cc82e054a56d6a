"""How often a caller may call, and how many calls it may have under way."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from coral.colony.access.limits import Buckets, CallLimits
from coral.model.errors import ResourceExhausted
from coral.model.principal import Kind, Principal
from coral.wire.guard import Call

ANN = Principal(name="ann", kind=Kind.USER)
BEN = Principal(name="ben", kind=Kind.USER)


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def limits(clock: Clock, **values: float) -> CallLimits:
    """Limits of ten calls at once, two a second for long, three at the same time, one refusal a second."""
    chosen = {"calls_per_s": 2, "calls_burst": 10, "calls_at_once": 3, "refusals_per_s": 1, **values}
    return CallLimits(monotonic=clock, **chosen)  # type: ignore[arg-type]


def call(address: str = "10.0.0.1:4000") -> Call:
    """A call from somewhere."""
    return Call(method="/coral.colony.v1.DebugService/ListDebugSessions", address=address)


def test_a_caller_has_a_burst_and_then_a_rate() -> None:
    """After the burst calls pass at the rate, the refusal says when, and nobody else is held up."""
    clock = Clock()
    ours = limits(clock)

    def calls(principal: Principal) -> int:
        passed = 0
        try:
            for _ in range(100):
                with ours.serving(principal, call()):
                    passed += 1
        except ResourceExhausted as error:
            assert error.message == f"{principal.name} calls too often: 2 calls a second are allowed for long."
            assert (error.hint, error.details) == (
                "Try again in 1 s.",
                {"limit": "calls per second", "retry_after_s": "1"},
            )
        return passed

    assert (calls(ANN), calls(ANN), calls(BEN)) == (10, 0, 10)
    clock.now += 2.5
    assert (calls(ANN), calls(ANN)) == (5, 0)
    clock.now += 1000
    assert calls(ANN) == 10


def test_calls_at_once_are_bounded() -> None:
    """A further call beside as many as may be under way is refused; one that ends, however, makes room; an agent of the same
    name is somebody else, and whoever has no credential is not counted.
    """
    ours = limits(Clock(), calls_burst=1000)
    with ExitStack() as running:
        for _ in range(3):
            running.enter_context(ours.serving(ANN, call()))
        with pytest.raises(ResourceExhausted, match="ann has 3 calls under way"), ours.serving(ANN, call()):
            raise AssertionError("served")
        running.enter_context(ours.serving(Principal(name="ann", kind=Kind.AGENT), call()))
        for _ in range(5):
            running.enter_context(ours.serving(Principal(name="ann", kind=Kind.LOCAL), call()))
    with pytest.raises(ZeroDivisionError), ours.serving(ANN, call()):
        _ = 1 / 0
    with ExitStack() as running:
        for _ in range(3):
            running.enter_context(ours.serving(ANN, call()))


@pytest.mark.parametrize(
    ("bad", "same", "other"),
    [
        ("10.0.0.1:4000", "10.0.0.1:5000", "10.0.0.2:4000"),
        ("[2001:db8::1]:4000", "[2001:db8::ffff:1]:9", "[2001:db8:0:1::1]:4000"),
        ("[::ffff:10.0.0.1]:1", "10.0.0.1:2", "[::ffff:10.0.0.2]:1"),
        ("somewhere", "somewhere", "elsewhere"),
    ],
)
def test_an_address_that_guesses_has_to_wait(bad: str, same: str, other: str) -> None:
    """So many bad credentials, and that address, of IPv6 that network, is not listened to for a while; others are."""
    clock = Clock()
    ours = limits(clock)
    for _ in range(20):
        ours.check_address(call(bad))
        ours.refused(call(bad))
    with pytest.raises(ResourceExhausted, match=r"refused too often.* Try again in 1 s\."):
        ours.check_address(call(same))
    ours.check_address(call(other))
    clock.now += 1
    ours.check_address(call(same))


def test_buckets_of_the_longest_quiet_are_forgotten() -> None:
    """A million addresses cost no more memory than ten thousand."""
    clock = Clock()
    buckets = Buckets(per_s=1, burst=1, monotonic=clock)
    buckets.take("first")
    for number in range(9_999):
        buckets.take(str(number))
    buckets.take("first")
    for number in range(9_999, 12_000):
        buckets.take(str(number))
    assert len(buckets) == 10_000
    assert buckets.wait_s("first") == 1
    assert buckets.wait_s("0") == 0
