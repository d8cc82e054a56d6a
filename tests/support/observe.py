"""One program watched through one session, from before its first call until after its last; and what must then hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from support import rpc
from support.stack import Stack
from support.target import Target
from support.text import changed_text

SLACK_NS = 20_000_000
"""How far an event's wall-clock time may be from the caller's: both are read from one clock, at different moments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What Coral says, and what the program says.

    Attributes:
        document: The session document after the end.
        events: Every stored event, in the order in which they are listed.
        truth: The counters that the program kept itself.
    """

    document: dict[str, Any]
    events: list[dict[str, Any]]
    truth: dict[str, Any]

    @property
    def ledger(self) -> dict[str, Any]:
        """Of the session."""
        ledger: dict[str, Any] = self.document["ledger"]
        return ledger


def observe(
    stack: Stack, target: Target, function: str, *options: str, exit_code: int = 0, events: bool = True
) -> Observation:
    """Attaches to a waiting program, lets it work, detaches, and lets it end.

    Args:
        stack: A running colony and agent.
        target: The program, which has not begun.
        function: What is probed.
        options: Further ones of ``debug attach``.
        exit_code: What the program is to end with.
        events: Whether the events are read; a flood of them is better counted in the database.
    """
    if options:
        session_id = stack.cli.attach(target.service, function, *options)["session_id"]
    else:  # one way in is as good as the other, and this one is quicker
        session_id = rpc.attach(stack.colony, target.service, function).session_id
    try:
        (session,) = rpc.sessions(stack.colony, session_id=session_id)
        (instance,) = session.collectors[0].instances
        assert (session.status, instance.status) == ("active", "attached")
        offsets = sorted(int(change.rpartition("+")[2], 16) for change in changed_text(target.pid))
        assert offsets == sorted({site.offset for site in instance.sites}), "the breakpoints are not those of the document"
        assert offsets != []
        truth = target.run()
    finally:  # a session that a failure left behind would be seen by the tests that follow
        document = stack.cli.stop(session_id)
    assert changed_text(target.pid) == []
    listed = stack.cli.events(session_id) if events else []
    assert target.finish() == exit_code
    assert ledger_faults(document["ledger"]) == []
    if events:
        identities = {(event["collector_id"], event["sequence"]) for event in listed}
        assert len(identities) == len(listed) == document["ledger"]["stored"]
    return Observation(document=document, events=listed, truth=truth)


def ledger_faults(ledger: dict[str, Any]) -> list[str]:
    """The lines of a final ledger that do not hold; empty when it balances and says so."""
    n = ledger
    lines = {
        "entered = returned + unreturned + unseen": (n["entered"], n["returned"] + n["unreturned"] + n["unseen"]),
        "unreturned = open + no_return + too_deep": (n["unreturned"], n["open"] + n["no_return"] + n["too_deep"]),
        "returned + unseen = emitted + filtered + sampled_out + rate_limited + ring_lost": (
            n["returned"] + n["unseen"],
            n["emitted"] + n["filtered"] + n["sampled_out"] + n["rate_limited"] + n["ring_lost"],
        ),
        "emitted = stored + queue_dropped + in_transit": (n["emitted"], n["stored"] + n["queue_dropped"] + n["in_transit"]),
        "in_transit = 0": (n["in_transit"], 0),
        "balanced": (n["balanced"], True),
        "unknown_intervals": (n["unknown_intervals"], []),
    }
    return [f"{line}: {left} is not {right}" for line, (left, right) in lines.items() if left != right]


def counted(ledger: dict[str, Any], **expected: int) -> dict[str, int]:
    """The counters of a ledger that are named in ``expected`` or not 0, to be compared with it as a whole."""
    return {
        name: value
        for name, value in ledger.items()
        if name not in ("unknown_intervals", "balanced") and (value != 0 or name in expected)
    }


def every_call_stored(calls: int, returned: int | None = None) -> dict[str, int]:
    """What ``counted`` gives when no event was lost.

    Args:
        calls: How many entered.
        returned: How many of them returned; all if None.
    """
    back = calls if returned is None else returned
    whole = {"entered": calls, "returned": back, "emitted": back, "stored": back}
    return whole if back == calls else {**whole, "unreturned": calls - back}


def sites(document: dict[str, Any]) -> Counter[str]:
    """How many sites of each kind the first instance has."""
    return Counter(site["kind"] for site in document["collectors"][0]["instances"][0]["sites"])


def wall_ns(timestamp: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time in UTC with nine decimals."""
    seconds, fraction = timestamp.removesuffix("Z").split(".")
    assert len(fraction) == 9, timestamp
    return round(datetime.fromisoformat(seconds + "+00:00").timestamp()) * 1_000_000_000 + int(fraction)


def assert_durations(events: Sequence[dict[str, Any]], timings: Sequence[dict[str, int]]) -> None:
    """Every event's duration lies between what the function and what its caller measured, and its time between theirs.

    The two measurements bracket the event's own: entry site, first look at the clock in the function, last look, exit site.
    So no event may be longer than the caller's time, none shorter than the function's; and calls over 1 ms are within 5 % or
    0.2 ms of the caller's time, but for how long the caller waited for a processor. One call in twenty may be further away:
    what a hypervisor takes from the machine is in no figure of the program.

    Args:
        events: Of one caller, in the order of their timestamps.
        timings: Of its calls, in their order.
    """
    assert len(events) == len(timings)
    far = []
    for event, timing in zip(events, timings, strict=True):
        duration_ns, outer_ns = event["duration_ns"], timing["outer_ns"]
        assert timing["inner_ns"] <= duration_ns <= outer_ns, (event, timing)
        assert timing["wall_from_ns"] - SLACK_NS <= wall_ns(event["timestamp"]) <= timing["wall_to_ns"] + SLACK_NS
        if outer_ns > 1_000_000 and outer_ns - duration_ns > max(0.05 * outer_ns, 200_000) + timing["waited_ns"]:
            far.append((event, timing))
    assert len(far) <= (len(events) + 10) // 20, far


def assert_ranked_durations(events: Sequence[dict[str, Any]], timings: Sequence[dict[str, int]]) -> None:
    """As ``assert_durations``, for several callers at once: which event belongs to which call is not known, but when every
    event lies between two measurements, so do the sorted ones; and what all of them lack is what the callers waited.
    """
    seen = sorted(event["duration_ns"] for event in events)
    inner, outer = (sorted(timing[side] for timing in timings) for side in ("inner_ns", "outer_ns"))
    assert len(seen) == len(timings)
    assert all(low <= middle <= high for low, middle, high in zip(inner, seen, outer, strict=True))
    waited_ns = sum(timing["waited_ns"] for timing in timings)
    assert sum(outer) - sum(seen) <= sum(max(0.05 * outer_ns, 200_000) for outer_ns in outer) + waited_ns


def assert_stored_once(stack: Stack, document: dict[str, Any]) -> None:
    """The database holds as many events as the ledger says, each (collector_id, sequence) once."""
    collectors = ", ".join(f"'{collector['collector_id']}'" for collector in document["collectors"])
    rows = stack.cli.query(
        "SELECT count(*) AS stored, count(DISTINCT (collector_id, sequence)) AS distinct_events "
        f"FROM uprobe_events WHERE collector_id IN ({collectors})"
    )
    stored = document["ledger"]["stored"]
    assert rows == [{"stored": stored, "distinct_events": stored}]
