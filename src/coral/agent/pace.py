"""When an agent speaks to its colony next: at the interval that the colony asks for, and never all agents at once.

A colony that comes back is met by its whole fleet. So each agent begins at a moment of its own, no two pauses are quite
alike, and who is not answered waits a random part of a bound that doubles ("full jitter": Marc Brooker, Exponential Backoff
And Jitter, AWS Architecture Blog, 2015).
"""

from __future__ import annotations

import random

_INTERVAL_S = 1.0
_SHORTEST_S, _LONGEST_S = 0.1, 600.0
_SPREAD = 0.1
"""By what share of the interval a pause differs from it, at most."""
_LEAST, _MOST_LEAST_S = 1 / 30, 1.0
"""What starts on a host is known to the colony within about a second, however large the fleet."""
_FIRST_RETRY_S, _LAST_RETRY_S = 0.5, 5.0
_FIRST_RETRY, _LAST_RETRY = 1 / 4, 2.0
"""Of the interval, where that is more: a fleet whose colony is too slow must not ask more of it than one that is answered."""


class Pace:
    """The pauses of one agent, in seconds.

    Attributes:
        interval_s: What the colony asks for, between two heartbeats.
    """

    def __init__(self, *, chance: random.Random | None = None) -> None:
        """Args: ``chance`` is where randomness comes from."""
        self._chance = chance or random.Random()
        self.interval_s = _INTERVAL_S
        self._bound_s = 0.0

    def told(self, heartbeat_ms: int) -> None:
        """Takes the interval that the colony asks for, within bounds; 0 asks for nothing."""
        if heartbeat_ms:
            self.interval_s = min(max(heartbeat_ms / 1000, _SHORTEST_S), _LONGEST_S)

    def registered(self) -> None:
        """Notes that the colony answered: the next retry is a first one."""
        self._bound_s = 0.0

    def first_s(self) -> float:
        """From a registration to the first heartbeat: anywhere in an interval, so that a fleet is spread over it."""
        return max(_SHORTEST_S, self._chance.uniform(0.0, self.interval_s))

    def next_s(self) -> float:
        """From one heartbeat to the next: the interval, give or take a tenth."""
        return self._chance.uniform(self.interval_s * (1 - _SPREAD), self.interval_s * (1 + _SPREAD))

    def least_s(self) -> float:
        """From one heartbeat to the next, however often the services change: in a large fleet up to a second."""
        return min(max(_SHORTEST_S, self.interval_s * _LEAST), _MOST_LEAST_S)

    def retry_s(self) -> float:
        """From a try that was not answered to the next; the bound grows to 5 s, in a large fleet to two intervals."""
        bound_s = max(self._bound_s, _FIRST_RETRY_S, self.interval_s * _FIRST_RETRY)
        self._bound_s = min(2 * bound_s, max(_LAST_RETRY_S, self.interval_s * _LAST_RETRY))
        return max(_SHORTEST_S, self._chance.uniform(0.0, bound_s))
