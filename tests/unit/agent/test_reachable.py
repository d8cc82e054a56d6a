"""Where the colony reaches an agent."""

from __future__ import annotations

import pytest

from coral.agent.reachable import reachable_at
from coral.model.errors import InvalidArgument


@pytest.mark.parametrize(
    ("advertise", "bound", "expected"),
    [
        ("", "127.0.0.1:8080", "127.0.0.1:8080"),
        ("", "host.example:8080", "host.example:8080"),
        ("web-1.example.com:9000", "0.0.0.0:8080", "web-1.example.com:9000"),
        ("", "0.0.0.0:8080", "127.0.0.1:8080"),
    ],
)
def test_reachable(advertise: str, bound: str, expected: str) -> None:
    """What is set counts, else where it listens; of every address the one that this host has towards the colony."""
    assert reachable_at(advertise=advertise, bound=bound, colony="127.0.0.1:8081") == expected


def test_advertised_nonsense() -> None:
    """An address without a port is refused at the start, not when the colony calls."""
    with pytest.raises(InvalidArgument):
        reachable_at(advertise="web-1", bound="0.0.0.0:8080", colony="127.0.0.1:8081")
