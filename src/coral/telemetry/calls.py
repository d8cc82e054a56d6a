"""The RPCs that a server answered: how many with which status, and how long the unary ones took."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from coral.telemetry.timings import Timings


@dataclass(slots=True)
class Call:
    """One that is being answered.

    Attributes:
        code: The name of its status, as it will be counted.
    """

    code: str = "CANCELLED"


class Calls:
    """Belongs to the event loop's thread.

    Attributes:
        answered: How many, by method and status.
        timings: Of the unary ones, by method. A stream lasts as long as its reader likes, which tells nothing.
        open: How many are being answered now, by method.
    """

    def __init__(self) -> None:
        self.answered: Counter[tuple[str, str]] = Counter()
        self.timings: defaultdict[str, Timings] = defaultdict(Timings)
        self.open: Counter[str] = Counter()

    @contextmanager
    def answering(self, method: str, *, timed: bool) -> Iterator[Call]:
        """Counts the call that the block answers; who goes away from it ends it as CANCELLED.

        Args:
            method: Its full name, of one that the server has: each name is kept for ever.
            timed: Whether it is a unary one.
        """
        call, began = Call(), time.monotonic()
        self.open[method] += 1
        try:
            yield call
        finally:
            self.open[method] -= 1
            self.answered[method, call.code] += 1
            if timed:
                self.timings[method].note(time.monotonic() - began)
