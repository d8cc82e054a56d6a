"""The files of the audit log's copy, opened to be read."""

from __future__ import annotations

import os
from pathlib import Path

from coral.trust.audit_files import Snapshot


def test_a_snapshot_shows_what_was_there(tmp_path: Path) -> None:
    """What is appended or put aside after it was made changes nothing in it; a file that is not there has no lines."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"one\ntwo\n")
    with Snapshot([tmp_path / "none", path]) as snapshot:
        with path.open("ab") as file:
            file.write(b"three\n")
        path.rename(tmp_path / "aside")
        assert list(snapshot.lines()) == [b"one", b"two"]


def test_a_snapshot_that_nobody_takes_leaves_nothing_open(tmp_path: Path) -> None:
    """One that was made for a caller who has gone costs no descriptor."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"one\n")
    before = len(os.listdir("/proc/self/fd"))
    made = Snapshot([path] * 5)
    assert len(os.listdir("/proc/self/fd")) == before + 5
    del made
    assert len(os.listdir("/proc/self/fd")) == before
