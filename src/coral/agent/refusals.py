"""What an agent did not do although it was asked: kept until its colony has heard of it, in bounded memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from coral.model.errors import CoralError
from coral.model.text import printable

_KEPT = 200
_AT_ONCE = 50
_MAX_TEXT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One, or many of a kind: from one host, for one method, with one outcome.

    Attributes:
        time_ns: Of the first, wall clock.
        method: What was asked for.
        principal: Who asked, as far as was proven.
        host: Where from, without the port, which changes with every connection.
        code: Name of the status.
        message: Of the first.
        count: How many.
    """

    time_ns: int
    method: str
    principal: str
    host: str
    code: str
    message: str
    count: int = 1

    @property
    def kind(self) -> tuple[str, ...]:
        """What it is counted under."""
        return self.method, self.principal, self.host, self.code


class Refusals:
    """Those that the colony has not heard of. When there are too many kinds, the oldest are given up for new ones."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[str, ...], Refusal] = OrderedDict()

    def note(self, *, method: str, principal: str, address: str, error: CoralError) -> Refusal:
        """Takes one in; returns it with how often that was."""
        new = Refusal(
            time_ns=time.time_ns(),
            method=printable(method)[:_MAX_TEXT],
            principal=printable(principal)[:_MAX_TEXT],
            host=printable(address.rpartition(":")[0] or address)[:_MAX_TEXT],
            code=error.code,
            message=printable(str(error))[:_MAX_TEXT],
        )
        return self._add(new)

    def take(self) -> list[Refusal]:
        """The oldest, for the next report."""
        return [self._waiting.popitem(last=False)[1] for _ in range(min(_AT_ONCE, len(self._waiting)))]

    def put_back(self, refusals: Iterable[Refusal]) -> None:
        """What was taken and did not arrive."""
        for refusal in refusals:
            self._add(refusal)

    def _add(self, refusal: Refusal) -> Refusal:
        known = self._waiting.get(refusal.kind)
        if known is not None:
            first = min(known, refusal, key=lambda each: each.time_ns)
            refusal = replace(first, count=known.count + refusal.count)
        self._waiting[refusal.kind] = refusal
        while len(self._waiting) > _KEPT:
            self._waiting.popitem(last=False)
        return refusal
