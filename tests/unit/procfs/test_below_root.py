"""Files below a root directory that somebody else has made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from coral.procfs.below_root import open_below, open_regular, open_root


@pytest.fixture
def root(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A directory to be taken for a root, with a secret beside it."""
    (tmp_path / "secret").write_text("outside")
    inner = tmp_path / "root"
    inner.mkdir()
    (inner / "file").write_text("inside")
    fd = os.open(inner, os.O_PATH | os.O_DIRECTORY)
    yield fd, inner
    os.close(fd)


def _content(fd: int) -> str:
    with os.fdopen(fd) as file:
        return file.read()


def test_links_stay_below_the_root(root: tuple[int, Path]) -> None:
    """An absolute link and one that goes up lead to what the process itself would find."""
    fd, inner = root
    (inner / "absolute").symlink_to("/file")
    (inner / "up").symlink_to("../../../../file")
    (inner / "secret").symlink_to("../secret")
    assert [_content(open_below(fd, name)) for name in ("/file", "/absolute", "/up", "/../file")] == ["inside"] * 4
    with pytest.raises(OSError, match=r"symbolic links: '/secret'"):
        open_below(fd, "/secret")
    with pytest.raises(FileNotFoundError):
        open_below(fd, str(inner.parent / "secret"))


def test_links_of_proc_lead_nowhere() -> None:
    """/proc/PID/root would lead out of every root."""
    fd = open_root(os.getpid())
    try:
        with pytest.raises(OSError, match="symbolic links"):
            open_below(fd, "/proc/self/root/etc/passwd")
    finally:
        os.close(fd)


def test_only_regular_files_are_opened(root: tuple[int, Path]) -> None:
    """A pipe without a writer would hold up whoever opens it, a device may do something when it is opened."""
    fd, inner = root
    os.mkfifo(inner / "pipe")
    for path in ("/pipe", "/"):
        with pytest.raises(OSError, match="not a regular file"):
            open_below(fd, path)
    with pytest.raises(OSError, match="not a regular file"):
        open_regular("/dev/null")
    assert _content(open_regular(str(inner / "file"))) == "inside"
