"""The metrics that docs/operations.md tells of are those that there are."""

from __future__ import annotations

import re
from pathlib import Path

from support.build import ROOT

_SOURCES = ("telemetry/metrics.py", "colony/metrics.py", "agent/metrics.py")
_MADE = re.compile(r'\b(gauge|counter|histogram)\(\s*"(coral_\w+)"|^\s+\("(coral_\w+)",', re.MULTILINE)


def test_every_metric_is_documented() -> None:
    """Each metric of both daemons has its row, under the name that Prometheus sees, and each row its metric."""
    made = set()
    for source in _SOURCES:
        for kind, name, listed in _MADE.findall(Path(ROOT / "src" / "coral" / source).read_text()):
            made.add(f"{name}_total" if kind == "counter" else name or listed)
    section = (ROOT / "docs" / "operations.md").read_text().partition("### Metrics\n")[2].partition("Worth an alert")[0]
    documented = {name for row in section.splitlines() if row.startswith("|") for name in re.findall(r"`(coral_\w+)`", row)}
    assert documented == made
