"""Files of programs: written over, and held open no longer than a session needs them."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from support import build, rpc
from support.launch import living
from support.observe import counted, every_call_stored, ledger_faults
from support.stack import SplitStack, Stack
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


def test_program_that_is_written_over_at_once(stack: Stack, tmp_path: Path) -> None:
    """A new version that is written into the file the moment the old one has ended waits for the old probes to go."""
    program, service = tmp_path / "program", unique_service("program")
    program.write_bytes(build.c_program("loop").read_bytes())
    program.chmod(0o755)
    with running(build.c_program("loop"), "--calls", 10, service=service) as steady:
        with running(program, "--calls", 300, service=service) as old:
            session_id = rpc.attach(stack.colony, service, "work").session_id
            assert old.run()["wrong"] == 0
            assert old.finish() == 0
        with program.open("r+b") as file:
            file.write(build.c_program("forks").read_bytes())
            file.truncate()
        with running(program, "--children", 0, "--calls", 200, service=unique_service("another")) as new:
            assert changed_text(new.pid) == []
            assert new.run()["calls"] == 200
            assert new.finish() == 0
        assert steady.run()["wrong"] == 0
        document = stack.cli.stop(session_id)
        assert steady.finish() == 0
    assert ledger_faults(document["ledger"]) == []
    assert counted(document["ledger"]) == every_call_stored(310)


def test_library_that_is_written_over_in_place(stack: Stack, tmp_path: Path) -> None:
    """Who writes a library that a probed process has loaded is let in once its probes are gone, and that is said."""
    library = tmp_path / "libshared.so"
    library.write_bytes(build.c_library("shared").read_bytes())
    with living() as target:
        target.do(f"load {library}")
        session_id = rpc.attach(stack.colony, target.service, "libshared.so!shared_work").session_id
        assert target.do("call 50")["wrong"] == 0
        with library.open("r+b") as file:
            assert changed_text(target.pid) == []
            file.write(build.c_library("shared").read_bytes())
        assert target.do("call 50")["wrong"] == 0
        document = stack.cli.stop(session_id)
        assert target.exit(3) == 3
    (instance,) = document["collectors"][0]["instances"]
    assert (instance["status"], "written over" in instance["reason"]) == ("failed", True)
    assert ledger_faults(document["ledger"]) == []
    assert counted(document["ledger"]) == every_call_stored(50)


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
