"""The checks of `coral doctor` on what daemons keep: state directories, database files, and the room for them."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from coral.colony.store.opening import set_aside_files
from coral.config.settings import AgentSettings, ColonySettings
from coral.dev.checks import Check, failed, passed, warned

_MIB = 1 << 20
_OTHERS = 0o077
_READ_S = 30.0
_DESCRIPTORS = 4096
_DATABASES = ("control.duckdb", "events.duckdb")
_READING = """
import sys, duckdb
try:
    with duckdb.connect(sys.argv[1], read_only=True) as connection:
        print(connection.execute("SELECT max(number) FROM schema_migrations").fetchone()[0])
except duckdb.Error as error:
    sys.exit(str(error).partition("\\n")[0])
"""
"""Not in this process: what is wrong with a file may end whoever reads it."""


def state_checks(of_colony: ColonySettings, of_agent: AgentSettings) -> list[Check]:
    """Everything that can be said of the state directories of both."""
    checks = [_directory("state", of_colony.state_dir, min_free_bytes=of_colony.min_free_bytes)]
    if of_agent.state_dir != of_colony.state_dir:
        checks.append(_directory("agent state", of_agent.state_dir))
    checks.append(_files(of_colony.state_dir))
    checks.append(_descriptors())
    return checks


def _directory(name: str, wanted: Path, *, min_free_bytes: int = 0) -> Check:
    """Whether a state directory, or where it will be made, is writable and its owner's alone, and whether there is room."""
    existing = next(folder for folder in (wanted, *wanted.parents) if folder.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return failed(
            name, f"{existing} cannot be written by this user.", "Run as its owner, or give another folder with --state-dir."
        )
    found = wanted.stat() if existing == wanted else None
    if found is not None and stat.S_IMODE(found.st_mode) & _OTHERS:
        return warned(
            name,
            f"{wanted} is open to others (mode {stat.S_IMODE(found.st_mode):04o}).",
            f"Close it, as it keeps what functions were called with: `chmod 700 {wanted}`.",
        )
    if found is not None and found.st_uid != os.geteuid():
        return warned(
            name,
            f"{wanted} belongs to uid {found.st_uid}, and this is uid {os.geteuid()}.",
            "Run the daemon as its owner: files of another one would be in its way.",
        )
    free_bytes = shutil.disk_usage(existing).free
    message = f"{wanted} has {free_bytes // _MIB:,} MiB of free space"
    if free_bytes < min_free_bytes:
        return failed(
            name,
            f"{message}, less than colony.min_free_bytes: events would be dropped.",
            "Free some, or give another folder with --state-dir.",
        )
    return passed(name, f"{message}.")


def _files(state_dir: Path) -> Check:
    """Whether the database files can be read, if there are any and no colony has them open."""
    name, readable, held = "database files", [], []
    paths = [state_dir / file for file in _DATABASES]
    try:
        there = [path for path in paths if path.exists()]
    except OSError as error:
        return warned(
            name, f"{state_dir} cannot be looked into: {error.strerror}.", "Run it as the colony's user, or as root."
        )
    for path in there:
        reason = _why_unreadable(path)
        if reason is None:
            readable.append(path.name)
        elif "lock" in reason:
            held.append(path.name)
        elif "ermission" in reason:
            return warned(name, f"{path} may not be read by this user.", "Run it as the colony's user, or as root.")
        else:
            return failed(
                name,
                f"{path} cannot be read: {reason}.",
                "Keep a copy of it; a colony that starts there sets it aside and begins it anew.",
            )
    if kept := [path.name for path in set_aside_files(state_dir)]:
        return warned(
            name,
            f"{', '.join(kept)} in {state_dir} {'was' if len(kept) == 1 else 'were'} damaged and set aside.",
            "Look at the disk, keep what you need of them, and remove them.",
        )
    if held:
        return passed(name, f"A colony that runs has {' and '.join(held)} open.")
    return passed(name, f"{' and '.join(readable)} can be read." if readable else f"There are none yet in {state_dir}.")


def _why_unreadable(path: Path) -> str | None:
    if not os.access(path, os.R_OK):
        return "Permission denied"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _READING, path], capture_output=True, text=True, timeout=_READ_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it could not be opened in {_READ_S:.0f} s"
    if done.returncode == 0:
        return None
    return done.stderr.strip().rpartition("\n")[2].rstrip(".") or f"reading it ended with {done.returncode}"


def _descriptors() -> Check:
    """Whether a daemon started like this command may have as many files and connections open as it needs."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _DESCRIPTORS:
        return warned(
            "descriptors",
            f"A process may have {hard:,} files open; a colony keeps one for each connection.",
            f"Raise it: LimitNOFILE= in the unit, or `ulimit -n {_DESCRIPTORS}`.",
        )
    return passed("descriptors", "A process may have enough files open.")
