"""Whether a daemon says that it works when it does, and that it lives when it moves."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from coral.telemetry.service_manager import ServiceManager
from coral.telemetry.vitals import Trouble, Vitals


class Manager:
    """A service manager's socket, and what came in on it."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        """What came since the last call."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found


def watched(
    parts: dict[str, Callable[[], Trouble | None]], manager: ServiceManager, steps: list[Callable[[], object]]
) -> list[bool]:
    """Runs ``Vitals`` fast, with each of the steps a while after the one before; what it reported."""
    reported: list[bool] = []

    async def report(serving: bool) -> None:
        reported.append(serving)

    async def scenario() -> None:
        vitals = Vitals(parts, report=report, manager=manager, look_s=0.02)
        running = asyncio.create_task(vitals.run())
        for step in steps:
            await asyncio.sleep(0.3)
            step()
        running.cancel()

    asyncio.run(scenario())
    return reported


def test_what_fails_is_told_and_does_not_end_the_daemon(tmp_path: Path) -> None:
    """A part that fails makes the daemon not serve until it works again; the manager is told why, and that it lives."""
    manager, troubles = Manager(tmp_path), dict[str, Trouble]()
    heard: list[list[str]] = []
    reported = watched(
        {"disk": lambda: troubles.get("disk"), "pump": lambda: None},
        ServiceManager(manager.path, watchdog_s=0.08),
        [
            lambda: (heard.append(manager.heard()), troubles.update(disk=Trouble(reason="it is full"))),
            lambda: (manager.heard(),),
            lambda: (heard.append(manager.heard()), troubles.clear()),
            lambda: None,
        ],
    )
    assert reported == [False, True]
    assert set(heard[0]) == {"WATCHDOG=1\nSTATUS=Works."}
    assert "WATCHDOG=1\nSTATUS=disk: it is full" in heard[1]


def test_a_manager_hears_nothing_of_a_daemon_that_is_stuck(tmp_path: Path) -> None:
    """While a part does not move no sign of life is sent: neither for a blocked thread, nor for a blocked event loop."""
    manager = Manager(tmp_path)
    blocked, turned = threading.Event(), [time.monotonic()]
    ending = threading.Event()

    def work() -> None:
        while not ending.is_set():
            turned[0] = time.monotonic()
            while blocked.is_set() and not ending.is_set():
                time.sleep(0.005)
            time.sleep(0.005)

    def look() -> Trouble | None:
        return Trouble(reason="it does not turn", stuck=True) if time.monotonic() - turned[0] > 0.15 else None

    worker = threading.Thread(target=work)
    worker.start()
    heard: list[int] = []
    reported = watched(
        {"worker": look},
        ServiceManager(manager.path, watchdog_s=0.08),
        [
            lambda: (heard.append(len(manager.heard())), blocked.set()),
            lambda: manager.heard(),
            lambda: (heard.append(len(manager.heard())), blocked.clear()),
            lambda: (time.sleep(0.3), heard.append(len(manager.heard()))),
            lambda: (manager.heard(), time.sleep(0.5), heard.append(len(manager.heard()))),
            lambda: heard.append(len(manager.heard())),
        ],
    )
    ending.set()
    worker.join()
    works, stuck, again, loop_stuck, after = heard
    assert (works > 0, stuck, again > 0, loop_stuck, after > 0) == (True, 0, True, 0, True)
    assert reported == [False, True]


def test_the_environment_names_the_manager() -> None:
    """Socket and pace are taken out of the environment; a watchdog that is meant for another process is none."""
    mine = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    others = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}
    assert [ServiceManager.of(each).watchdog_s for each in (mine, others, {})] == [30.0, 0.0, 0.0]
    assert (mine, others) == ({"HOME": "/"}, {})
