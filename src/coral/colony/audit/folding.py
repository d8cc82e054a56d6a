"""Refusals at the door, so that somebody who tries a thousand keys fills neither log nor disk.

The first refusal of a kind from an address is a record of its own, at once. What is the same is counted for a while and then
written as one more record that says how many there were. An address that is refused in many different ways is counted as a
whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from coral.colony.audit.entry import Entry

WINDOW_S = 10.0
KINDS = 20
"""How many kinds of refusals of one address are told apart in a window."""
ADDRESSES = 1_000
"""How many addresses are."""
_VARIOUS = "various"


@dataclass(slots=True)
class _Count:
    entry: Entry
    until: float
    times: int = 0


class Folding:
    """Decides which refusals are written."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[tuple[str, ...], _Count]] = {}

    def take(self, entry: Entry, now: float) -> Entry | None:
        """Takes a refusal.

        Args:
            entry: It.
            now: Seconds of a clock that does not jump.

        Returns:
            What to write now; None if it is counted.
        """
        host = entry.address.rpartition(":")[0] or entry.address
        if host not in self._counts and len(self._counts) >= ADDRESSES:
            host = _VARIOUS
            entry = replace(entry, principal="", address=_VARIOUS, action=_VARIOUS, reason="")
        kinds = self._counts.setdefault(host, {})
        kind: tuple[str, ...] = (
            entry.principal,
            entry.action,
            entry.service_name,
            entry.function_name,
            entry.session_id,
            entry.agent_id,
            entry.outcome,
        )
        if kind not in kinds and len(kinds) >= KINDS:
            kind = (_VARIOUS,)
            entry = Entry(
                principal="", role="", address=entry.address, action=_VARIOUS, decision=entry.decision, outcome=entry.outcome
            )
        found = kinds.get(kind)
        if found is None:
            kinds[kind] = _Count(entry, now + WINDOW_S)
            return entry
        found.times += 1
        return None

    def due(self, now: float) -> Iterator[Entry]:
        """What to write of windows that are over; ``float("inf")`` ends all of them."""
        for host, kinds in list(self._counts.items()):
            for kind, count in list(kinds.items()):
                if count.until <= now:
                    del kinds[kind]
                    if count.times:
                        told = f"{count.times:,} more of these within {WINDOW_S:g} s"
                        yield replace(count.entry, reason=f"{told}: {count.entry.reason}"[:1024].removesuffix(": "))
            if not kinds:
                del self._counts[host]
