"""What a daemon keeps to itself: its files, and its memory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from coral.telemetry.lifecycle import announce_ready

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


@pytest.mark.parametrize("abstract", [False, True])
def test_a_service_manager_is_told(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever manages services learns that a daemon serves, by the socket it names; what the daemon starts knows of none."""
    path = f"@coral-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path.replace("@", "\0", 1))
        manager.settimeout(5)
        announce_ready({"ready": True}, None)
        assert manager.recv(100) == b"READY=1"
    assert "NOTIFY_SOCKET" not in os.environ
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    announce_ready({"ready": True}, None)
