"""The kill switch: what the command and the agent tell each other, and what happens when one of them does not answer."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coral.agent import lockdown_control
from coral.agent.lockdown import Lockdown, LockdownFiles, Switch
from coral.model.errors import FailedPrecondition
from coral.procfs.process import process_id

_LOCKDOWN = Lockdown(since_ns=1_795_530_000_000_000_000, by="root", reason="audit")


class _Engine:
    """Notes what it was told."""

    def __init__(self) -> None:
        self.forbidden = ""
        self.detached_all = 0

    def forbid(self, reason: str) -> None:
        self.forbidden = reason

    def detach_all(self) -> int:
        self.detached_all += 1
        return 1


def test_a_lockdown_is_a_file_of_its_owner_alone(tmp_path: Path) -> None:
    """What was written is what is read; the file and its folder are nobody else's; lifting it says whether there was one."""
    files = LockdownFiles(tmp_path / "state")
    assert files.lockdown is None
    files.lock(_LOCKDOWN)
    assert files.lockdown == _LOCKDOWN
    assert str(_LOCKDOWN) == "since 2026-11-24T14:20:00Z by root: audit"
    assert [oct(path.stat().st_mode & 0o777) for path in (files.state_dir, files.state_dir / "lockdown")] == [
        "0o700",
        "0o600",
    ]
    assert (files.lift(), files.lift(), files.lockdown) == (True, False, None)


@pytest.mark.parametrize("content", ["", "null", "[]", '{"since_ns": "x"}', "[" * 5000, '{"by": "a"}', "\x00"])
def test_what_cannot_be_read_counts_as_a_lockdown(tmp_path: Path, content: str) -> None:
    """A damaged switch is on: nobody can have meant to leave it like this."""
    files = LockdownFiles(tmp_path)
    (tmp_path / "lockdown").touch(mode=0o600)
    (tmp_path / "lockdown").write_text(content)
    assert files.lockdown is not None
    assert "is damaged; what cannot be read counts as a lockdown" in str(files.lockdown)


def test_a_switch_that_others_could_have_written_counts_as_a_lockdown(tmp_path: Path) -> None:
    """So does one that is no file."""
    files = LockdownFiles(tmp_path)
    files.lock(_LOCKDOWN)
    (tmp_path / "lockdown").chmod(0o666)
    assert files.lockdown is not None
    assert files.lockdown.since_ns == 0
    files.lift()
    (tmp_path / "lockdown").symlink_to("/dev/zero")
    assert files.lockdown is not None


def test_the_agent_detaches_in_order_and_says_so(tmp_path: Path) -> None:
    """Attaching is forbidden first, then collectors end with their counts, then the rest is closed, then it answers."""
    files, engine = LockdownFiles(tmp_path), _Engine()
    said: list[str] = []

    async def detach() -> None:
        said.append(f"detached while {engine.forbidden}")

    async def scene() -> None:
        switch = Switch(files, engine)  # type: ignore[arg-type]
        switch.look()
        switch.check("a")
        running = asyncio.create_task(switch.run(detach, lambda: said.append(f"news: {switch.text}")))
        report = await asyncio.to_thread(lockdown_control.lock, files, "audit")
        assert (report.agent, report.lockdown) == ("running", switch.lockdown)
        assert report.sentence.endswith("by root: audit. Everything is detached; new probes are refused.")
        with pytest.raises(FailedPrecondition, match=r"Agent a is locked down since .*: it attaches nothing\. Lift it"):
            switch.check("a")
        assert said == [
            f"news: {switch.text}",
            f"detached while This host is locked down {switch.text}: nothing is attached.",
        ]
        assert engine.detached_all == 1
        assert (await asyncio.to_thread(lockdown_control.lift, files)).sentence.startswith("The lockdown is lifted.")
        switch.check("a")
        assert engine.forbidden == ""
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(scene())


def test_an_agent_whose_event_loop_hangs_detaches_all_the_same(tmp_path: Path) -> None:
    """The thread closes the links by itself when nobody else does, within the second."""
    files, engine = LockdownFiles(tmp_path), _Engine()

    async def scene() -> float:
        switch = Switch(files, engine)  # type: ignore[arg-type]
        switch.look()
        running = asyncio.create_task(switch.run(asyncio.Event().wait, lambda: None))
        await asyncio.sleep(0)
        begun_s = time.monotonic()
        files.lock(_LOCKDOWN)
        while not engine.detached_all and time.monotonic() < begun_s + 5:
            time.sleep(0.01)  # noqa: ASYNC251  (the loop hangs: that is what is tested)
        taken_s = time.monotonic() - begun_s
        running.cancel()
        await asyncio.wait([running])
        return taken_s

    assert asyncio.run(scene()) < 1.0
    assert engine.forbidden.startswith("This host is locked down since 2026-11-24T14:20:00Z")


def test_an_agent_that_gives_no_sign_is_ended(tmp_path: Path) -> None:
    """Its process is killed after a second, and no other that may have its number; the lockdown stays."""
    files = LockdownFiles(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as wedged:
        found = process_id(wedged.pid)
        running = tmp_path / "agent.running"
        running.touch(mode=0o600)
        running.write_text(json.dumps({"pid": wedged.pid, "start_time_ns": found.start_time_ns + 10_000_000}))
        assert lockdown_control.lock(files, "").agent == "not running"
        assert wedged.poll() is None
        running.write_text(json.dumps({"pid": wedged.pid, "start_time_ns": found.start_time_ns}))
        begun_s = time.monotonic()
        report = lockdown_control.lock(files, "")
        assert (report.agent, wedged.wait(5)) == ("ended", -9)
        assert 1.0 <= time.monotonic() - begun_s < 3.0
    assert lockdown_control.look(files).document()["locked"] is True


def test_a_user_who_is_not_the_agents_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither looking nor locking is for others."""
    files = LockdownFiles(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 65_533)
    for act in (lockdown_control.look, lockdown_control.lift, lambda each: lockdown_control.lock(each, "")):
        with pytest.raises(FailedPrecondition, match="Run it as root: sudo coral agent lockdown"):
            act(files)
    assert list(tmp_path.iterdir()) == []
