"""``coral config show``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coral.__main__ import COMMANDS, GROUPS
from coral.cli.entry import run


def test_config_show(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It prints every setting with its value and source, in each form; a wrong key is an error as it is for the daemon."""
    monkeypatch.delenv("CORAL_COLONY", raising=False)
    file = tmp_path / "c.yaml"
    file.write_text("{colony: {max_sessions: 5}, agent: {agent_id: web-1}}")
    assert run(["config", "show", "--config", str(file), "-o", "json"], commands=COMMANDS, groups=GROUPS) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["next_page_token"] is None
    assert {"key": "colony.max_sessions", "value": 5, "source": str(file)} in document["items"]
    assert {"key": "agent.ring_bytes", "value": 16_777_216, "source": "default"} in document["items"]
    assert run(["config", "show", "--config", str(file)], commands=COMMANDS, groups=GROUPS) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["KEY", "VALUE", "SOURCE"]
    assert ["agent.agent_id", "web-1", str(file)] in lines
    file.write_text("{colony: {max_session: 5}}")
    assert run(["config", "show", "--config", str(file)], commands=COMMANDS, groups=GROUPS) == 2
    assert "colony.max_session in" in capsys.readouterr().err
