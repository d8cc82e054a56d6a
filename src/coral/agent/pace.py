"""When an agent speaks to its colony next: at the interval that the colony asks for, and never all agents at once.

A colony that comes back is met by its whole fleet. So each agent begins at a moment of its own, and who is not answered waits
a random part of a bound that doubles ("full jitter": Marc Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015).
"""

from __future__ import annotations

import random

_INTERVAL_S = 1.0
_SHORTEST_S = 0.1
_LONGEST_S = 600.0
_SPREAD = 0.1
_FIRST_RETRY_S = 0.5
_LAST_RETRY_S = 5.0


class Pace:
    """The pauses of one agent.

    Args:
        chance: Where randomness comes from.

    Attributes:
        interval_s: What the colony asks for, between two heartbeats.
    """

    def __init__(self, *, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()
        self.interval_s = _INTERVAL_S
        self._bound_s = _FIRST_RETRY_S

    def told(self, heartbeat_ms: int) -> None:
        """Takes the interval that the colony asks for, in ms, within bounds; 0 asks for nothing."""
        if heartbeat_ms:
            self.interval_s = min(max(heartbeat_ms / 1000, _SHORTEST_S), _LONGEST_S)

    def registered(self) -> None:
        """Says that the colony answered: the next retry is a first one."""
        self._bound_s = _FIRST_RETRY_S

    def first_s(self) -> float:
        """Until the first heartbeat: anywhere in an interval, so that a fleet that registered at once is spread over it."""
        return self._chance.uniform(0.0, self.interval_s)

    def next_s(self) -> float:
        """Until the next heartbeat: the interval, give or take a tenth."""
        return self._chance.uniform(self.interval_s * (1 - _SPREAD), self.interval_s * (1 + _SPREAD))

    def least_s(self) -> float:
        """Between two heartbeats, however often services change."""
        return min(self.interval_s, _INTERVAL_S)

    def retry_s(self) -> float:
        """Until the next try, when one was not answered."""
        bound_s = self._bound_s
        self._bound_s = min(2 * bound_s, max(_LAST_RETRY_S, self.interval_s))
        return self._chance.uniform(0.0, bound_s)
