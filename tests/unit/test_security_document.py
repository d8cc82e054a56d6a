"""The threat model is true to the tests: each control names tests that exist, and the policy it describes is the default."""

from __future__ import annotations

import re
from pathlib import Path

from coral.config.settings import DENIED_BY_DEFAULT

_TESTS = Path(__file__).parents[1]
_DOCUMENT = _TESTS.parent / "docs" / "security.md"
_ID = re.compile(r"`([\w/]*\.py)?::(test_\w+)`")


def _rows() -> list[str]:
    """The rows of the tables of threats."""
    text = _DOCUMENT.read_text().partition("## Threats")[2].partition("## What it does not")[0]
    return [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| threat |", "| --- |"))]


def test_every_threat_has_a_control_and_a_test_that_exists() -> None:
    """A test is named by its file and function; ``::test_x`` alone is of the file that was named before it."""
    missing = []
    assert len(_rows()) > 20
    for row in _rows():
        threat, control, shown = (cell.strip() for cell in row.strip("| ").split(" | "))
        found = _ID.findall(shown)
        file = ""
        for named, function in found:
            file = named or file
            path = _TESTS / file
            if not path.is_file() or not re.search(rf"^(async )?def {function}\(", path.read_text(), re.MULTILINE):
                missing.append(f"{file}::{function}")
        assert control and found, threat
    assert missing == []


def test_what_is_denied_by_default_is_in_the_document() -> None:
    """Every program of the default rules is named where the policy of a host is described."""
    text = _DOCUMENT.read_text().partition("## The policy of a host")[2].replace("\\", "")
    (row,) = [line for line in text.splitlines() if line.startswith("| `deny_by_default`")]
    names = {rule.executable.removesuffix("-*").removesuffix("*") for rule in DENIED_BY_DEFAULT}
    assert [name for name in sorted(names - {"unix_chkpwd"}) if name not in row] == []
