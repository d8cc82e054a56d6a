"""What the log says of agents that come and go."""

from __future__ import annotations

from structlog.testing import capture_logs

from coral.colony.presence import Presence


def test_few_are_named_and_many_counted() -> None:
    """Each agent that came or went is named, once; when a network takes many with it, their number is said."""
    presence = Presence()
    fleet = frozenset(f"host-{number}" for number in range(100))
    with capture_logs() as logs:
        for online in ({"host-1", "host-2"}, {"host-1", "host-2"}, {"host-2", "host-3"}, fleet, set[str]()):
            presence.note(frozenset(online), known=100)
    assert [(each["event"], each.get("agent_id"), each["log_level"]) for each in logs] == [
        ("agent online", "host-1", "info"),
        ("agent online", "host-2", "info"),
        ("agent online", "host-3", "info"),
        ("agent offline", "host-1", "warning"),
        ("many agents came or went", None, "warning"),
        ("many agents came or went", None, "warning"),
    ]
    assert (logs[-1]["went"], logs[-1]["online"], logs[-1]["known"]) == (100, 0, 100)
