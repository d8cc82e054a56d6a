"""Files of policies are read when root or the colony's own user alone can have written them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from coral.model.errors import FailedPrecondition
from coral.trust.policy.folder import read_folder, signature_of

TEXT = "permit (principal, action, resource);"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two files of policies and some that are none."""
    path = tmp_path / "policies"
    path.mkdir(mode=0o755)
    for name in ("b.cedar", "a.cedar", "a.cedar.bak", ".a.cedar", "notes.txt"):
        (path / name).write_text(f"// {name}\n{TEXT}")
        (path / name).chmod(0o644)
    return path


def test_cedar_files_are_read_by_name(folder: Path) -> None:
    """In the order of their names; hidden files and those of other endings are left alone."""
    assert [(source.name, source.text) for source in read_folder(folder)] == [
        (name, f"// {name}\n{TEXT}") for name in ("a.cedar", "b.cedar")
    ]


def test_links_are_followed(folder: Path) -> None:
    """A mounted ConfigMap has its files as links."""
    (folder / "c.cedar").symlink_to(folder / "a.cedar")
    assert [source.name for source in read_folder(folder)] == ["a.cedar", "b.cedar", "c.cedar"]


def _foreign(path: Path) -> None:
    os.chown(path / "a.cedar", 12345, 12345)


def _large(path: Path) -> None:
    (path / "a.cedar").write_text("//" + "x" * (256 << 10))


def _pipe(path: Path) -> None:
    (path / "a.cedar").unlink()
    os.mkfifo(path / "a.cedar")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: (path / "a.cedar").chmod(0o664), "can be written by others"),
        (lambda path: path.chmod(0o777), "can be written by others"),
        (_foreign, "can be written by others"),
        (_large, "has more than 262,144 bytes"),
        (_pipe, "is no regular file"),
        (lambda path: (path / "a.cedar").write_bytes(b"\xff"), "is not UTF-8"),
        (lambda path: (path / "default.cedar").write_text(TEXT), "has the name of the policies that come with Coral"),
        (lambda path: (path / "c.cedar").symlink_to("nowhere"), "cannot be read: No such file or directory"),
        (lambda path: [(path / f"{n}.cedar").write_text("") for n in range(201)], "files of policies"),
    ],
    ids=["file mode", "folder mode", "owner", "size", "pipe", "encoding", "name", "dangling", "number"],
)
def test_what_others_may_have_written_is_refused(folder: Path, spoil: Callable[[Path], object], why: str) -> None:
    """So is what cannot be read; the message names the file, and nothing of the folder counts."""
    if spoil is _foreign and os.geteuid() != 0:
        pytest.fail("needs root, as the other tests of this repository do")
    spoil(folder)
    with pytest.raises(FailedPrecondition, match=why):
        read_folder(folder)


def test_a_signature_changes_with_what_is_in_the_folder(folder: Path) -> None:
    """It is the same until a file is written, added or removed; files that are no policies do not count."""
    first = signature_of(folder)
    (folder / "notes.txt").write_text("more")
    assert signature_of(folder) == first
    (folder / "a.cedar").write_text(TEXT + TEXT)
    second = signature_of(folder)
    (folder / "b.cedar").unlink()
    assert len({first, second, signature_of(folder)}) == 3


def test_a_folder_that_is_missing_is_refused(tmp_path: Path) -> None:
    """With the setting that names it."""
    with pytest.raises(FailedPrecondition, match=r"colony\.policy_dir"):
        read_folder(tmp_path / "nowhere")
