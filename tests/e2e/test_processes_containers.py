"""Programs in containers: what they run is found as they see it, and counted once, however their files are layered."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from support import build, rpc
from support.launch import in_overlay, launched
from support.observe import counted, every_call_stored, ledger_faults
from support.stack import Stack
from support.target import unique_service
from support.text import changed_text

pytestmark = pytest.mark.kernel


def test_replicas_of_one_image(stack: Stack, tmp_path: Path) -> None:
    """Two containers that share the layer which holds the program are two instances; each call is counted once."""
    service = unique_service("replicas")
    layer = tmp_path / "layer"
    layer.mkdir()
    shutil.copy2(build.c_program("loop", "-static"), layer / "app")
    commands = [
        in_overlay(tmp_path / name, layer, Path("/app"), "--calls", calls) for name, calls in (("a", 300), ("b", 500))
    ]
    with launched(commands[0], service=service) as first, launched(commands[1], service=service) as second:
        session_id = rpc.attach(stack.colony, service, "work").session_id
        (session,) = rpc.sessions(stack.colony, session_id=session_id)
        attached = {one.pid for one in session.collectors[0].instances if one.status == "attached"}
        assert attached == {first.pid, second.pid}
        assert [first.run()["wrong"], second.run()["wrong"]] == [0, 0]
        calls = {first.pid: 300, second.pid: 500}
        document = stack.cli.stop(session_id)
        assert [changed_text(first.pid), changed_text(second.pid)] == [[], []]
        assert [first.finish(), second.finish()] == [0, 0]
    assert ledger_faults(document["ledger"]) == []
    assert counted(document["ledger"]) == every_call_stored(800)
    assert Counter(event["pid"] for event in stack.cli.events(session_id)) == calls
