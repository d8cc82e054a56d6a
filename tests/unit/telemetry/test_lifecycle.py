"""What a daemon keeps to itself: its files, and its memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import os, resource, pathlib
from coral.telemetry.lifecycle import keep_to_itself
keep_to_itself()
os.mkdir("folder", 0o777)
pathlib.Path("folder/file").write_text("x")
print(oct(os.stat("folder").st_mode & 0o777), oct(os.stat("folder/file").st_mode & 0o777))
print(resource.getrlimit(resource.RLIMIT_CORE), end=" ")
print(open("/proc/self/comm").read().strip() != "", len(os.listdir("/proc/self/fd")) > 2)
import ctypes
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), flush=True)  # PR_GET_DUMPABLE
os.abort()
"""


def test_a_daemon_keeps_to_itself(tmp_path: Path) -> None:
    """Its folders and files are its owner's alone, and it leaves no core dump; it can still look at itself."""
    ended = subprocess.run([sys.executable, "-c", _PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.stdout.splitlines() == ["0o700 0o600", "(0, 0) True True", "0"], ended.stderr
    assert ended.returncode < 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]
