"""The name that a process was started under, as far as argv[0] can be believed.

argv[0] is whatever the starter or, later, the program itself put there: a name (``redis-server``), a path, a login shell's
``-bash``, a title (``nginx: worker process``, ``redis-server *:6379``). It counts when it is the name of the executable, or a
link to it, as ``redis-server`` is to ``redis-check-rdb`` on Debian and every tool of BusyBox to ``busybox``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from coral.procfs.files import PROC
from coral.procfs.process import Process
from coral.procfs.root import path_in_root

_TITLE_END = re.compile(r"[\s:]")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def name_from_arguments(process: Process, *, proc: Path = PROC) -> str:
    """The base name of argv[0] if that is the name of the executable or a link to it, else ``""``."""
    if not process.cmdline:
        return ""
    whole = process.cmdline[0].removeprefix("-")
    # A path may hold blanks and colons; a title has them after its first word.
    for candidate in dict.fromkeys((whole, _TITLE_END.split(whole, maxsplit=1)[0])):
        base = candidate.rpartition("/")[2]
        if base and (base == process.executable.rpartition("/")[2] or _links_to_executable(process, candidate, proc)):
            return base
    return ""


def _links_to_executable(process: Process, argument: str, proc: Path) -> bool:
    pid = process.id.pid
    try:
        program = (proc / str(pid) / "exe").stat()
        cwd = str((proc / str(pid) / "cwd").readlink()) if "/" in argument and not argument.startswith("/") else "/"
    except OSError:
        return False
    for path in _places(process, argument):
        try:
            found = path_in_root(pid, path, cwd=cwd, proc=proc).stat()
        except (OSError, ValueError):
            continue
        if (found.st_dev, found.st_ino) == (program.st_dev, program.st_ino):
            return True
    return False


def _places(process: Process, argument: str) -> Iterable[str]:
    """Where the program may be found under this name: the path itself, else beside the executable and in ``PATH``."""
    if "/" in argument:
        yield argument
        return
    yield f"{process.executable.rpartition('/')[0]}/{argument}"
    for directory in process.environ.get("PATH", _DEFAULT_PATH).split(":"):
        if directory.startswith("/"):
            yield f"{directory}/{argument}"
