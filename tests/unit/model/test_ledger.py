"""The ledger's arithmetic."""

import pytest

from coral.model.ledger import Ledger, UnknownInterval

WHOLE = Ledger(
    entered=20, returned=12, open=2, no_return=1, too_deep=1, unseen=4, emitted=9, filtered=3, sampled_out=2, rate_limited=1,
    ring_lost=1, stored=8, queue_dropped=1, orphan_returns=5, final=True,
)  # fmt: skip


def test_a_whole_ledger_balances() -> None:
    """When every line holds and nothing is in transit, it is balanced; what was lost is said all the same."""
    assert (WHOLE.unreturned, WHOLE.in_transit, WHOLE.balanced, WHOLE.lost) == (4, 0, True, True)


@pytest.mark.parametrize("field", ["entered", "returned", "open", "emitted", "filtered", "stored", "unseen"])
def test_one_call_off_does_not_balance(field: str) -> None:
    """A difference of one in any line is seen."""
    values = {name: getattr(WHOLE, name) for name in Ledger.__dataclass_fields__}
    assert Ledger(**values | {field: values[field] + 1}).balanced is False


def test_what_moves_or_is_unknown_is_not_judged() -> None:
    """While counters move, or when an interval is unknown, balanced is None."""
    gap = UnknownInterval(from_ns=1, to_ns=2, cause="the agent was gone")
    assert Ledger(entered=3, returned=3, emitted=3).balanced is None
    assert Ledger(unknown_intervals=(gap,), final=True).balanced is None


def test_ledgers_add_up() -> None:
    """The sum has every counter of both, the intervals of both, and is final only when both are."""
    gap = UnknownInterval(from_ns=1, to_ns=2, cause="the agent was gone")
    total = WHOLE + Ledger(entered=1, open=1, unknown_intervals=(gap,))
    assert (total.entered, total.open, total.stored) == (21, 3, 8)
    assert (total.unknown_intervals, total.final) == ((gap,), False)
