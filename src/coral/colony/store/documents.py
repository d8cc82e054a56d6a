"""Values that are kept as JSON in a column: ledgers and unknown intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from coral.model.ledger import COUNTERS, Ledger, UnknownInterval


def ledger_text(ledger: Ledger) -> str:
    """The counters of a ledger, and whether they are final; unknown intervals have a column of their own."""
    return json.dumps({**{name: getattr(ledger, name) for name in COUNTERS}, "final": ledger.final})


def ledger_of(text: str) -> Ledger:
    """The ledger that ``ledger_text`` wrote; a counter that a later version added is 0 in older rows."""
    kept = json.loads(text)
    counters: dict[str, Any] = {name: int(kept.get(name, 0)) for name in COUNTERS}
    return replace(Ledger(**counters), final=bool(kept.get("final", False)))


def intervals_text(intervals: Sequence[UnknownInterval]) -> str:
    """A list of unknown intervals."""
    return json.dumps([{"from_ns": gap.from_ns, "to_ns": gap.to_ns, "cause": gap.cause} for gap in intervals])


def intervals_of(text: str) -> tuple[UnknownInterval, ...]:
    """The intervals that ``intervals_text`` wrote."""
    return tuple(UnknownInterval(**gap) for gap in json.loads(text))
