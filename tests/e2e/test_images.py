"""Files of programs: written over, and held open no longer than a session needs them."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from support import build, rpc
from support.observe import counted, every_call_stored, ledger_faults
from support.stack import SplitStack
from support.target import running, unique_service
from support.text import changed_text

pytestmark = pytest.mark.kernel


def test_program_that_is_written_over_in_place(split: SplitStack, tmp_path: Path) -> None:
    """A new version in the same file, started during the session, carries its own breakpoints and none of the old ones."""
    program, service = tmp_path / "program", unique_service("program")
    program.write_bytes(build.c_program("loop").read_bytes())
    program.chmod(0o755)
    before = _links(split)
    with running(program, "--calls", 300, service=service) as old:
        session_id = rpc.attach(split.colony, service, "work").session_id
        assert _links(split) > before
        assert old.run()["wrong"] == 0
        assert old.finish() == 0
    while _links(split) > before:  # the test's own time limit ends it
        time.sleep(0.01)
    with program.open("r+b") as file:
        file.write(build.c_program("forks").read_bytes())
        file.truncate()
    with running(program, "--children", 0, "--calls", 200, service=service) as new:
        statuses = []
        while statuses != ["exited", "attached"]:
            (session,) = rpc.sessions(split.colony, session_id=session_id)
            statuses = [instance.status for instance in session.collectors[0].instances]
        sites = {site.offset for site in session.collectors[0].instances[1].sites}
        assert {int(change.rpartition("+")[2], 16) for change in changed_text(new.pid)} == sites
        assert new.run()["calls"] == 200
        document = split.cli.stop(session_id)
        assert changed_text(new.pid) == []
        assert new.finish() == 0
    assert ledger_faults(document["ledger"]) == []
    assert counted(document["ledger"]) == every_call_stored(500)


def test_no_file_stays_open(split: SplitStack) -> None:
    """Once sessions have ended, the agent holds the file of the program open no more."""
    program = build.c_program("loop")
    with running(program, "--calls", 10) as target:
        for _ in range(3):
            session_id = rpc.attach(split.colony, target.service, "work").session_id
            assert str(program) in _opened(split)
            split.cli.stop(session_id)
        target.run()
        assert target.finish() == 0
    assert str(program) not in _opened(split)


def _links(split: SplitStack) -> int:
    """How many links to the kernel's probes the agent holds."""
    return sum("bpf_link" in name or "bpf-link" in name for name in _opened(split))


def _opened(split: SplitStack) -> list[str]:
    """What the agent's descriptors lead to."""
    assert split.agent_daemon is not None
    names = []
    for fd in Path(f"/proc/{split.agent_daemon.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            names.append(str(fd.readlink()))
    return names
