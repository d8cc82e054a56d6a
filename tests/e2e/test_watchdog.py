"""A daemon and its service manager, over a real notify socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from support.cli import CORAL, clean_environment

_WATCHDOG_S = 2.0


def test_a_daemon_that_stands_still_is_noticed(tmp_path: Path) -> None:
    """It says that it serves, then that it lives, in time; nothing while it is stopped; and again when it goes on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        env = clean_environment() | {
            "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": str(round(_WATCHDOG_S * 1e6)),
        }  # fmt: skip
        options = ("--insecure", "--listen", "127.0.0.1:0", "--state-dir", str(tmp_path / "colony"))
        with subprocess.Popen([CORAL, "colony", "start", *options], env=env, stderr=subprocess.DEVNULL) as daemon:
            try:
                manager.settimeout(60)
                assert manager.recv(4096) == b"READY=1"
                heard = []
                for _ in range(3):
                    manager.settimeout(_WATCHDOG_S)
                    heard.append(manager.recv(4096))
                assert set(heard) == {b"WATCHDOG=1\nSTATUS=Works."}
                os.kill(daemon.pid, signal.SIGSTOP)
                assert _silent(manager, _WATCHDOG_S)
                os.kill(daemon.pid, signal.SIGCONT)
                manager.settimeout(_WATCHDOG_S)
                assert manager.recv(4096) == b"WATCHDOG=1\nSTATUS=Works."
            finally:
                daemon.send_signal(signal.SIGCONT)
                daemon.terminate()


def _silent(manager: socket.socket, seconds: float) -> bool:
    """Whether nothing comes for so long, but for what was on its way."""
    time.sleep(0.1)
    manager.setblocking(False)
    while True:
        try:
            manager.recv(4096)
        except BlockingIOError:
            break
    manager.settimeout(seconds)
    try:
        manager.recv(4096)
    except TimeoutError:
        return True
    return False
