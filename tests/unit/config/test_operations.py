"""The tables of limits in docs/operations.md say what the settings say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coral.config.settings import AgentSettings, ColonySettings

OPERATIONS = Path(__file__).resolve().parents[3] / "docs" / "operations.md"
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ", re.MULTILINE)


def _table(daemon: str) -> dict[str, str]:
    """The defaults that the document gives, by setting."""
    text = OPERATIONS.read_text()
    begins = text.index(f"| setting of the {daemon} | default |")
    return dict(ROW.findall(text[begins : text.index("\n\n", begins)]))


@pytest.mark.parametrize(("daemon", "settings"), [("colony", ColonySettings), ("agent", AgentSettings)])
def test_documented_limits_are_the_defaults(daemon: str, settings: type[ColonySettings | AgentSettings]) -> None:
    """Each row names a setting and its default, and each limit has its row."""
    documented = _table(daemon)
    defaults = {key: str(settings.model_fields[key].default) for key in documented}
    assert documented == defaults
    bounds = {key for key in settings.model_fields if re.match(r"max_|slot_|calls_|refusals_|.*events_per_s$|.*_bytes$", key)}
    elsewhere = {
        "min_free_bytes",
        "keep_free_bytes",
        "max_events_bytes",
        "audit_copy_bytes",
    }  # storage, not limits of what somebody may ask for
    assert bounds - elsewhere == set(documented)
