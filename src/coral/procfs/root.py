"""Paths as a process sees them, which may be in another mount namespace or behind a chroot.

``/proc/PID/root/some/path`` alone is not enough: an absolute symbolic link on the way would be followed from the root of the
reader. openat2(2) has RESOLVE_IN_ROOT for this, which Python does not offer, so links are followed here.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from coral.procfs.files import PROC

_MAX_LINKS = 40
"""As the kernel's own limit, path_resolution(7)."""


def path_in_root(pid: int, path: str, *, cwd: str = "/", proc: Path = PROC) -> Path:
    """A path that opens here what ``path`` opens in the process, with no symbolic link left in it below the root.

    Args:
        pid: Of the process.
        path: As the process would write it.
        cwd: Where a relative path starts, as the process sees it.
        proc: Where proc is mounted.

    Raises:
        OSError: A part does not exist or may not be read; ELOOP when links lead in a circle.
    """
    root = f"{proc}/{pid}/root"
    pending = (path if path.startswith("/") else f"{cwd}/{path}").split("/")[::-1]
    done: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            del done[-1:]
            continue
        here = "/".join((root, *done, part))
        try:
            target = str(Path(here).readlink())
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith("/"):
            done.clear()
        pending.extend(reversed(target.split("/")))
    return Path("/".join((root, *done)))
