"""Disks of a test's own: small ones to fill, and one that goes read-only as a failing one does."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SmallDisk:
    """A tmpfs, which is full when it is.

    Attributes:
        folder: Where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, leave_bytes: int = 0) -> None:
        """Fills it, but for ``leave_bytes``."""
        with self._ballast.open("wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(1 << 16))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            ballast.truncate(max(0, ballast.tell() - leave_bytes))

    def empty(self) -> None:
        """Takes the ballast away again."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """A tmpfs of that size at ``folder``, which is made."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)], check=True)
    try:
        yield SmallDisk(folder)
    finally:
        _unmount(folder)


class Ext4Disk:
    """An ext4 file system in a file, that stops writing for good when the kernel finds it damaged.

    Attributes:
        folder: Where it is mounted.
    """

    def __init__(self, image: Path, folder: Path) -> None:
        self._image = image
        self.folder = folder

    def mount(self) -> None:
        """Mounts it, to go read-only at the first error."""
        subprocess.run(["mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.folder)], check=True)

    def fail(self) -> None:
        """Has the kernel meet an error in it: it is read-only from now on, for those who have files open too."""
        shown = subprocess.run(["findmnt", "-n", "-o", "SOURCE", self.folder], check=True, capture_output=True, text=True)
        Path("/sys/fs/ext4", Path(shown.stdout.strip()).name, "trigger_fs_error").write_text("a test\n")
        deadline = time.monotonic() + 5
        while not os.statvfs(self.folder).f_flag & os.ST_RDONLY and not self._refuses():
            assert time.monotonic() < deadline, "the file system is not read-only"
            time.sleep(0.02)

    def repair(self) -> None:
        """Unmounts it, has it checked, and mounts it anew; nobody may have a file in it open."""
        _unmount(self.folder)
        subprocess.run(["e2fsck", "-f", "-y", str(self._image)], stdout=subprocess.DEVNULL, check=False)  # 1: it mended
        self.mount()

    def _refuses(self) -> bool:
        try:
            (self.folder / "probe").touch()
        except OSError as error:
            return error.errno == errno.EROFS
        return False


@contextmanager
def ext4_disk(folder: Path, size_bytes: int) -> Iterator[Ext4Disk]:
    """An ext4 file system of that size at ``folder``, which is made."""
    folder.mkdir()
    image = folder.with_name(f"{folder.name}.img")
    with image.open("wb") as file:
        file.truncate(size_bytes)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    disk = Ext4Disk(image, folder)
    disk.mount()
    try:
        yield disk
    finally:
        _unmount(folder)


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", str(folder)], check=True)
