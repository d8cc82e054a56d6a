"""The ledger: every call that entered while the probe was on is accounted for.

    entered           = returned + unreturned + unseen
    unreturned        = open + no_return + too_deep
    returned + unseen = emitted + filtered + sampled_out + rate_limited + ring_lost
    emitted           = stored + queue_dropped + in_transit

No counter on either side of an equation is computed from the other side, except the two that name a difference by
definition: ``unreturned`` is the sum of its three parts, and ``in_transit`` is what was emitted and has neither been stored
nor counted as dropped. ``balanced`` is therefore a real check: it asks for ``in_transit`` 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownInterval:
    """A time whose counts died with the process that held them.

    Attributes:
        from_ns: Its start, wall clock in ns since the epoch.
        to_ns: Its end, likewise; 0 while it lasts.
        cause: A sentence.
    """

    from_ns: int
    to_ns: int
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The counters, in the order of the session document. See the module for what holds between them.

    Attributes:
        entered: Calls whose entry was seen.
        returned: Calls whose return was seen and paired with their entry.
        open: Entries still tracked.
        no_return: Calls proven gone without a return.
        too_deep: Calls that there was no room to track.
        emitted: Events handed to the ring.
        filtered: Calls that the filter, ``max_events`` or mode ``count`` kept back.
        sampled_out: Calls that sampling kept back.
        rate_limited: Calls that the rate limit kept back.
        ring_lost: Events that found the ring full.
        stored: Events in the colony's database.
        queue_dropped: Events that a reader found missing in the sequence.
        orphan_returns: Returns whose entry is not tracked.
        unknown_intervals: Times without counts.
        unseen: Calls of ``entry_only`` instances and of mode ``count``.
        final: Whether the counters will not change any more.
    """

    entered: int = 0
    returned: int = 0
    open: int = 0
    no_return: int = 0
    too_deep: int = 0
    emitted: int = 0
    filtered: int = 0
    sampled_out: int = 0
    rate_limited: int = 0
    ring_lost: int = 0
    stored: int = 0
    queue_dropped: int = 0
    orphan_returns: int = 0
    unknown_intervals: tuple[UnknownInterval, ...] = ()
    unseen: int = 0
    final: bool = False

    @property
    def unreturned(self) -> int:
        """Calls that entered and whose return was not seen."""
        return self.open + self.no_return + self.too_deep

    @property
    def in_transit(self) -> int:
        """Events emitted that are neither stored nor counted as dropped; never below 0."""
        return max(0, self.emitted - self.stored - self.queue_dropped)

    @property
    def balanced(self) -> bool | None:
        """Whether every line holds; None while counters still move or when a time is unknown."""
        if not self.final or self.unknown_intervals:
            return None
        return (
            self.entered == self.returned + self.unreturned + self.unseen
            and self.returned + self.unseen
            == self.emitted + self.filtered + self.sampled_out + self.rate_limited + self.ring_lost
            and self.emitted == self.stored + self.queue_dropped
        )

    @property
    def lost(self) -> bool:
        """Whether any call was lost that was meant to be reported."""
        return bool(self.ring_lost or self.queue_dropped or self.rate_limited or self.unknown_intervals)

    def __add__(self, other: Ledger) -> Ledger:
        """The ledger of both together; final when both are."""
        counters = {name: getattr(self, name) + getattr(other, name) for name in COUNTERS}
        return Ledger(
            **counters,
            unknown_intervals=self.unknown_intervals + other.unknown_intervals,
            final=self.final and other.final,
        )

    def with_store(self, *, stored: int, queue_dropped: int) -> Ledger:
        """This ledger with what the store counted itself."""
        return replace(self, stored=stored, queue_dropped=queue_dropped)


COUNTERS = (
    "entered", "returned", "open", "no_return", "too_deep", "emitted", "filtered", "sampled_out", "rate_limited",
    "ring_lost", "stored", "queue_dropped", "orphan_returns", "unseen",
)  # fmt: skip
"""The names of the summable fields."""
