"""How a session ends, given how its collectors did; and what it says of times without counts."""

from __future__ import annotations

import pytest

from coral.colony.book import LiveCollector, conclude
from coral.colony.progress import Progress
from coral.model.ledger import Ledger, UnknownInterval
from coral.model.session import Collector, ReasonCode, Session, Status

DEADLINE = (Status.EXPIRED, ReasonCode.DEADLINE)
LIMIT = (Status.DETACHED, ReasonCode.MAX_EVENTS)
GONE = (Status.LOST, ReasonCode.AGENT_GONE)
BROKEN = (Status.FAILED, ReasonCode.NONE)


def collector(agent_id: str, status: Status, reason_code: ReasonCode) -> LiveCollector:
    """One that has ended."""
    return LiveCollector(
        agent_id=agent_id,
        boot_id="b",
        progress=Progress(collector_id="c-" + agent_id, session_id="s"),
        status=status,
        reason_code=reason_code,
        reason=f"{agent_id} ended.",
    )


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([DEADLINE], DEADLINE),
        ([GONE], GONE),
        ([BROKEN], BROKEN),
        ([LIMIT], LIMIT),
        ([GONE, DEADLINE], DEADLINE),
        ([LIMIT, DEADLINE], DEADLINE),
        ([BROKEN, GONE], GONE),
        ([BROKEN, LIMIT], LIMIT),
    ],
)
def test_end_of_a_session(ends: list[tuple[Status, ReasonCode]], expected: tuple[Status, ReasonCode]) -> None:
    """A session ends as the most regular of its collectors, and its reason tells what happened to the others."""
    collectors = [collector(f"a{number}", *end) for number, end in enumerate(ends)]
    ending = conclude(collectors)
    assert (ending.status, ending.reason_code) == expected
    for one in collectors:
        assert one.reason in ending.reason


def test_unknown_interval() -> None:
    """It begins at the last snapshot, or with the session when none came; it never ends before it begins."""
    one = collector("a", *GONE)
    assert one.unknown_since(5, to_ns=0, cause="x") == (UnknownInterval(from_ns=5, to_ns=0, cause="x"),)
    one.progress = Progress(collector_id="c", session_id="s", snapshot_at_ns=9)
    assert one.unknown_since(5, to_ns=12, cause="x") == (UnknownInterval(from_ns=9, to_ns=12, cause="x"),)
    assert one.unknown_since(5, to_ns=7, cause="x") == (UnknownInterval(from_ns=9, to_ns=9, cause="x"),)


def test_ledger_of_a_session() -> None:
    """It is the sum of its collectors'; it balances only if each is final and no time is unknown."""
    whole = Ledger(entered=4, returned=3, open=1, emitted=3, stored=3, final=True)

    def session(*ledgers: Ledger) -> Ledger:
        collectors = tuple(
            Collector(collector_id=str(number), agent_id="a", status=Status.EXPIRED, ledger=ledger)
            for number, ledger in enumerate(ledgers)
        )
        return Session(
            session_id="s", service_name="x", function_name="f", agent_id="", started_at_ns=0, expires_at_ns=1,
            status=Status.EXPIRED, requested_by="me", collectors=collectors,
        ).ledger  # fmt: skip

    both = session(whole, whole)
    assert (both.entered, both.open, both.stored, both.balanced) == (8, 2, 6, True)
    dropped = Ledger(entered=4, returned=4, emitted=4, stored=3, final=True)
    assert session(whole, dropped).balanced is False
    assert session(whole, Ledger(entered=1)).balanced is None
    gap = UnknownInterval(from_ns=1, to_ns=2, cause="x")
    gone = Ledger(entered=4, returned=4, emitted=4, stored=4, unknown_intervals=(gap,), final=True)
    assert (session(whole, gone).balanced, session(whole, gone).unknown_intervals) == (None, (gap,))
