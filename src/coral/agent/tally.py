"""What the collectors of an agent counted, all together: kept when a collector itself is forgotten."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from coral.agent.collector import Collector
from coral.model.ledger import Ledger


@dataclass(slots=True)
class Tally:
    """A sum over collectors.

    Attributes:
        ledger: Their counters.
        ended: How many have ended, by status and reason code.
    """

    ledger: Ledger = field(default_factory=Ledger)
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, collector: Collector) -> None:
        """Counts one in, as it is now."""
        self.ledger += collector.ledger
        if collector.ended.is_set():
            self.ended[collector.status.value, collector.reason_code.value] += 1

    def copy(self) -> Tally:
        """A sum of its own to go on with."""
        return Tally(self.ledger, self.ended.copy())
