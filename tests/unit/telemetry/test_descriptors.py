"""How many connections a daemon takes, so that it has descriptors left for itself."""

from __future__ import annotations

import resource

import pytest

from coral.telemetry import lifecycle

INFINITE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "taken", "raised"),
    [
        (1024, 524_288, 8192, 8192, 8704),
        (1024, 4096, 8192, 3584, 4096),
        (100, 100, 8192, 16, None),
        (1 << 20, 1 << 20, 8192, 8192, None),
        (1024, INFINITE, 8192, 8192, 8704),
        (INFINITE, INFINITE, 8192, 8192, None),
    ],
)
def test_connections_leave_room_for_the_daemon(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int, taken: int, raised: int | None
) -> None:
    """The soft limit is raised as far as need be and may be; no more connections are taken than leave the daemon its own."""
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    assert lifecycle.room_for(wanted) == taken
    assert limits[1:] == ([] if raised is None else [(raised, hard)])
