"""When an agent speaks to its colony next."""

from __future__ import annotations

import random

from coral.agent.pace import Pace


def test_agents_that_register_together_do_not_speak_together() -> None:
    """A thousand agents that are asked for 30 s begin in every second of them, and stay within a tenth of the interval."""
    paces = [Pace(chance=random.Random(seed)) for seed in range(1000)]
    for pace in paces:
        pace.told(30_000)
    begins = sorted(pace.first_s() for pace in paces)
    assert all(any(second <= begin < second + 1 for begin in begins) for second in range(30))
    pauses = [pace.next_s() for pace in paces for _ in range(10)]
    assert min(pauses) >= 27 and max(pauses) <= 33 and len(set(pauses)) > 9_000


def test_who_is_not_answered_waits_longer_each_time() -> None:
    """The bound of a retry doubles up to 5 s, in a large fleet up to two intervals, and begins anew after an answer."""
    small, large = (Pace(chance=_Most()) for _ in range(2))
    large.told(30_000)
    assert [small.retry_s() for _ in range(6)] == [0.5, 1, 2, 4, 5, 5]
    assert [large.retry_s() for _ in range(5)] == [7.5, 15, 30, 60, 60]
    large.registered()
    assert large.retry_s() == 7.5


def test_what_a_colony_asks_for_has_bounds() -> None:
    """A colony that says nothing changes nothing; absurd intervals are neither a flood nor silence."""
    pace = Pace(chance=random.Random(1))
    pace.told(0)
    assert pace.interval_s == 1.0
    pace.told(1)
    assert (pace.interval_s, pace.least_s()) == (0.1, 0.1)
    pace.told(1 << 40)
    assert (pace.interval_s, pace.least_s()) == (600.0, 1.0)


class _Most(random.Random):
    """Always the upper end."""

    def uniform(self, a: float, b: float) -> float:
        return b
