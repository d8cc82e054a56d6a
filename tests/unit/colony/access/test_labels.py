"""Services have the labels that the settings give them."""

from __future__ import annotations

from coral.colony.access.labels import Labels
from coral.trust.policy.question import Target


def test_labels_come_from_every_glob_that_matches() -> None:
    """A later glob wins over an earlier one, and a label over the colony's environment."""
    labels = Labels(
        environment="prod",
        by_glob={"pay*": {"team": "money", "tier": "1"}, "*-canary": {"env": "canary"}, "payments": {"tier": "0"}},
    )
    assert labels.target("payments") == Target(
        name="payments", environment="prod", labels={"env": "prod", "team": "money", "tier": "0"}
    )
    assert labels.target("pay-canary") == Target(
        name="pay-canary", environment="canary", labels={"env": "canary", "team": "money", "tier": "1"}
    )
    assert labels.target("Payments") == Target(name="Payments", environment="prod", labels={"env": "prod"})


def test_without_settings_nothing_is_known() -> None:
    """A service has its name alone."""
    assert Labels().target("web") == Target(name="web")
