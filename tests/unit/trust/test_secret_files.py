"""Files that only their owner may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from coral.model.errors import FailedPrecondition, NotFound
from coral.trust.secret_files import MAX_BYTES, create_secret, private_folder, read_secret, write_secret


def mode(path: Path) -> int:
    """The permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_mode_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    """A file has mode 0600 and a folder 0700 from the moment they exist, and nothing else is left beside the file."""
    before = os.umask(umask)
    try:
        folder = private_folder(tmp_path / "a" / "keys")
        create_secret(folder / "one.key", b"first")
        write_secret(folder / "two.key", b"second")
        write_secret(folder / "two.key", b"third")
    finally:
        os.umask(before)
    assert mode(folder) == 0o700
    assert {path.name: (mode(path), read_secret(path)) for path in folder.iterdir()} == {
        "one.key": (0o600, b"first"),
        "two.key": (0o600, b"third"),
    }


def test_create_leaves_what_is_there(tmp_path: Path) -> None:
    """A file that exists is not replaced by one that is to be new, nor is one that a link points to."""
    (tmp_path / "one.key").write_bytes(b"mine")
    (tmp_path / "link.key").symlink_to(tmp_path / "elsewhere")
    for name in ("one.key", "link.key"):
        with pytest.raises(FileExistsError):
            create_secret(tmp_path / name, b"yours")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.key", "one.key"]
    assert (tmp_path / "one.key").read_bytes() == b"mine"


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666])
def test_open_files_are_refused(tmp_path: Path, bits: int) -> None:
    """A key that others can read or write is not used, and the message says how to close it."""
    path = tmp_path / "one.key"
    path.write_bytes(b"secret")
    path.chmod(bits)
    with pytest.raises(FailedPrecondition) as refused:
        read_secret(path)
    assert str(refused.value).startswith(f"{path} is open to others (mode {bits:04o})")
    assert f"chmod 600 {path}" in refused.value.hint


def test_open_folders_are_refused(tmp_path: Path) -> None:
    """So is a folder that others can look into; and a link to a folder, which can be turned elsewhere."""
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(FailedPrecondition, match=f"chmod 700 {folder}"):
        private_folder(folder)
    folder.chmod(0o700)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(FailedPrecondition, match="not a folder itself"):
        private_folder(tmp_path / "link")
    assert private_folder(folder) == folder


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """A link, a FIFO, a folder and a huge file are refused at once; one that is missing is said to be."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    os.close(os.open(tmp_path / "huge", os.O_CREAT | os.O_WRONLY, 0o600))
    os.truncate(tmp_path / "huge", MAX_BYTES + 1)
    for name in ("link", "fifo", "folder", "huge"):
        with pytest.raises(FailedPrecondition):
            read_secret(tmp_path / name)
    with pytest.raises(NotFound):
        read_secret(tmp_path / "none")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_files_of_others_are_refused(tmp_path: Path) -> None:
    """A key or a folder that belongs to another user is not used: that user can change it."""
    (tmp_path / "one.key").write_bytes(b"secret")
    (tmp_path / "one.key").chmod(0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name in ("one.key", "folder"):
        os.chown(tmp_path / name, 65534, 65534)
    with pytest.raises(FailedPrecondition, match="belongs to uid 65534"):
        read_secret(tmp_path / "one.key")
    with pytest.raises(FailedPrecondition, match="belongs to uid 65534"):
        private_folder(tmp_path / "folder")
