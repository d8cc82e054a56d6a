"""The files of the audit log's copy, opened to be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coral.trust.audit_files import Snapshot


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_snapshot_shows_what_was_there(tmp_path: Path) -> None:
    """What is appended or put aside after it was made changes nothing in it; a file that is not there has no lines."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"one\ntwo\n")
    with Snapshot([tmp_path / "none", path]) as snapshot:
        with path.open("ab") as file:
            file.write(b"three\n")
        path.rename(tmp_path / "aside")
        assert list(snapshot.lines()) == [b"one", b"two"]


@pytest.mark.parametrize("kind", ["device", "pipe", "folder"])
def test_what_is_no_file_has_no_lines_to_be_right(tmp_path: Path, kind: str) -> None:
    """A link to a device, or a pipe, does not pass for an empty log that is as it was written; nothing stays open."""
    path, before = tmp_path / "audit.jsonl", _open_files()
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(OSError, match="not a regular file"):
        Snapshot([path])
    assert _open_files() == before


def test_a_snapshot_that_nobody_takes_leaves_nothing_open(tmp_path: Path) -> None:
    """One that was made for a caller who has gone costs no descriptor."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"one\n")
    before = _open_files()
    made = Snapshot([path] * 5)
    assert _open_files() == before + 5
    del made
    assert _open_files() == before
