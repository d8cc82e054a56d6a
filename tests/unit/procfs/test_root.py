from __future__ import annotations

import errno
from pathlib import Path

import pytest

from coral.procfs.root import path_in_root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root directory of process 9 of a made-up proc, with a program and links to it."""
    root = tmp_path / "9" / "root"
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "usr" / "bin" / "real").write_text("")
    (root / "bin").symlink_to("usr/bin")
    (root / "usr" / "bin" / "absolute").symlink_to("/bin/real")
    (root / "usr" / "bin" / "relative").symlink_to("../bin/./real")
    (root / "usr" / "bin" / "escape").symlink_to("../../../../../../usr/bin/real")
    (root / "loop").symlink_to("/loop")
    return root


@pytest.mark.parametrize(
    ("path", "cwd"),
    [
        ("/usr/bin/real", "/"),
        ("/bin/absolute", "/"),
        ("/usr/bin/relative", "/"),
        ("/usr/bin/escape", "/"),
        ("/../../usr/bin/real", "/"),
        ("real", "/usr/bin"),
        ("./../bin/absolute", "/usr/bin"),
    ],
)
def test_links_are_followed_below_the_root(root: Path, tmp_path: Path, path: str, cwd: str) -> None:
    """Whatever the links say, the path stays below the root of the process."""
    assert path_in_root(9, path, cwd=cwd, proc=tmp_path) == root / "usr" / "bin" / "real"


def test_what_does_not_exist_is_an_error(root: Path, tmp_path: Path) -> None:
    """A missing part is ENOENT, a circle of links ELOOP, as from the kernel."""
    assert root.is_dir()
    codes = []
    for path in ("/usr/nothing", "/nothing/at/all", "/loop"):
        with pytest.raises(OSError) as caught:
            path_in_root(9, path, proc=tmp_path)
        codes.append(caught.value.errno)
    assert codes == [errno.ENOENT, errno.ENOENT, errno.ELOOP]
