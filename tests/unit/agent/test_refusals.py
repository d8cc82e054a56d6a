"""What an agent reports of what it refused."""

from __future__ import annotations

from coral.agent import refusals
from coral.agent.refusals import Refusals
from coral.model.errors import PermissionDenied, Unauthenticated


def note(into: Refusals, method: str = "M", *, address: str = "10.0.0.9:1", principal: str = "p") -> None:
    """One refusal."""
    into.note(method=method, principal=principal, address=address, error=PermissionDenied("No.", hint="Never."))


def test_one_of_a_kind() -> None:
    """Refusals from one host for one method are one, with the first one's time and words, whatever the port."""
    kept = Refusals()
    for port in (1, 2, 3):
        note(kept, address=f"10.0.0.9:{port}")
    note(kept, address="10.0.0.8:1")
    kept.note(method="M", principal="p", address="10.0.0.9:4", error=Unauthenticated("Who?"))
    told = [(each.host, each.code, each.message, each.count) for each in kept.take()]
    assert told == [
        ("10.0.0.9", "PERMISSION_DENIED", "No. Never.", 3),
        ("10.0.0.8", "PERMISSION_DENIED", "No. Never.", 1),
        ("10.0.0.9", "UNAUTHENTICATED", "Who?", 1),
    ]
    assert kept.take() == []


def test_put_back() -> None:
    """What did not arrive is reported with the next, added to what came meanwhile."""
    kept = Refusals()
    note(kept)
    taken = kept.take()
    note(kept)
    kept.put_back(taken)
    (told,) = kept.take()
    assert (told.count, told.time_ns) == (2, taken[0].time_ns)


def test_bounded() -> None:
    """Whoever makes up new kinds gets the oldest forgotten, not memory; a report has a bounded number; texts are cut and
    printable.
    """
    kept = Refusals()
    for number in range(refusals._KEPT + 50):
        note(kept, f"M{number}")
    reports = []
    while report := kept.take():
        assert len(report) <= refusals._AT_ONCE
        reports += report
    assert [each.method for each in reports] == [f"M{number}" for number in range(50, refusals._KEPT + 50)]
    note(kept, "\x1b[31m" + "x" * 5000)
    (told,) = kept.take()
    assert len(told.method) <= 500
    assert told.method.isprintable()
