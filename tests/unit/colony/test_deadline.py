"""Deadlines of sessions, whatever the wall clock does."""

from __future__ import annotations

import time

import pytest

from coral.colony.deadline import Deadline, boot_ns
from coral.model.session import Session, Status

_S = 1_000_000_000


def session(*, accepted_ago_s: float, lasts_s: float = 60) -> Session:
    """One that was accepted so long ago, by the wall clock of today."""
    started_at_ns = time.time_ns() - round(accepted_ago_s * _S)
    return Session(
        session_id="s",
        service_name="svc",
        function_name="f",
        agent_id="",
        started_at_ns=started_at_ns,
        expires_at_ns=started_at_ns + round(lasts_s * _S),
        status=Status.ACTIVE,
        requested_by="ann",
    )


@pytest.mark.parametrize(
    ("accepted_ago_s", "remaining_s", "elapsed_s"),
    [
        (0, 60, 0),  # accepted now
        (20, 40, 20),  # before a restart of the colony
        (3600, 0, 60),  # while it was away for an hour, or the clock was set forward
        (-3600, 60, 0),  # the clock was set back
    ],
)
def test_what_remains(accepted_ago_s: float, remaining_s: float, elapsed_s: float) -> None:
    """What a session has left is between nothing and all of its time, however the wall clock was set in between."""
    deadline = Deadline.of(session(accepted_ago_s=accepted_ago_s))
    assert deadline.remaining_s == pytest.approx(remaining_s, abs=1)
    assert deadline.elapsed_ns / _S == pytest.approx(elapsed_s, abs=1)


def test_wall_clock_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a session has begun, nobody looks at the wall clock any more."""
    deadline = Deadline.of(session(accepted_ago_s=10))
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert deadline.remaining_s == pytest.approx(50, abs=1)
    assert deadline.at_boot_ns - boot_ns() == pytest.approx(50 * _S, abs=_S)
