"""``coral trace``: the result of an attach with no daemon, and nothing left behind however the command ends."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import build
from support.cli import CORAL, clean_environment
from support.observe import counted, every_call_stored, ledger_faults
from support.target import Target, running, unique_service
from support.text import changed_text, wait_until_restored

pytestmark = pytest.mark.kernel


@contextmanager
def tracing(target: Target, folder: Path, *options: str, **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A trace of ``work`` that has attached. ``folder`` is its working directory, its home and where temporary files go."""
    process = subprocess.Popen(
        [str(CORAL), "trace", str(target.pid), "work", "-d", "60s", *options],
        cwd=folder,
        env=clean_environment({"HOME": str(folder), "TMPDIR": str(folder), "XDG_STATE_HOME": str(folder)}),
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
    )
    try:
        deadline = time.monotonic() + 30
        while len(changed_text(target.pid)) < 2:  # its entry and its return
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "not attached after 30 s"
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.communicate()


def gone(children: list[psutil.Process]) -> bool:
    """Whether all of them ended within a few seconds."""
    return psutil.wait_procs(children, timeout=5)[1] == []


def test_the_calls_of_one_process_alone(tmp_path: Path) -> None:
    """Of two instances of a service the named one is seen: each call once; Ctrl-C ends it with the document and exit 0."""
    service = unique_service("traced")
    with (
        running(build.c_program("loop"), "--calls", 2000, service=service) as traced,
        running(build.c_program("loop"), "--calls", 300, service=service) as other,
    ):
        with tracing(traced, tmp_path, "-o", "json") as process:
            assert other.run()["wrong"] == traced.run()["wrong"] == 0
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=30)
        document = json.loads(stdout)
        assert process.returncode == 0, stderr
        assert ledger_faults(document["ledger"]) == []
        assert counted(document["ledger"]) == every_call_stored(2000)
        (collector,) = document["collectors"]
        assert [instance["pid"] for instance in collector["instances"]] == [traced.pid]
        assert document["service_name"] == service
        assert changed_text(traced.pid) == changed_text(other.pid) == []
        assert (traced.finish(), other.finish()) == (0, 0)
    assert list(tmp_path.iterdir()) == []


def test_what_it_forks_is_seen_too(tmp_path: Path) -> None:
    """Children of the process count from their first call."""
    with running(build.c_program("forks"), "--children", 3, "--calls", 100) as target:
        with tracing(target, tmp_path, "-o", "json") as process:
            calls = target.run()["calls"]
            process.send_signal(signal.SIGINT)
            stdout, _ = process.communicate(timeout=30)
        document = json.loads(stdout)
        assert counted(document["ledger"]) == every_call_stored(calls)
        assert len(document["collectors"][0]["instances"]) == 4
        assert target.finish() == 0


def test_nothing_is_left_after_kill_9(tmp_path: Path) -> None:
    """A trace that is killed leaves no breakpoint, no process and no file."""
    with running(build.c_program("loop"), "--calls", 100) as target:
        with tracing(target, tmp_path) as process:
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            wait_until_restored(target.pid, 5)
            assert gone(children)
        assert list(tmp_path.iterdir()) == []
        assert target.run()["wrong"] == 0
        assert target.finish() == 0


def test_nothing_is_left_after_the_terminal_closed(tmp_path: Path) -> None:
    """A trace whose terminal goes away ends, and leaves no breakpoint, no process and no file."""
    with running(build.c_program("loop"), "--calls", 100) as target:
        master, terminal = pty.openpty()
        streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal, "start_new_session": True}
        kept = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what this process ignores, as under nohup, its children do too
        with tracing(target, tmp_path, **streams) as process:
            signal.signal(signal.SIGHUP, kept)
            children = psutil.Process(process.pid).children(recursive=True)
            os.close(terminal)
            os.close(master)
            os.kill(process.pid, signal.SIGHUP)  # what the kernel sends to the session of a terminal that hung up
            process.wait(15)
            wait_until_restored(target.pid, 5)
            assert gone(children)
        assert list(tmp_path.iterdir()) == []
        assert target.run()["wrong"] == 0
        assert target.finish() == 0


@pytest.mark.parametrize(
    ("pid", "exit_code", "words"),
    [
        (lambda _: 4_194_304, 3, ["no process 4194304"]),
        (lambda _: 2, 1, ["kernel thread"]),
        (lambda target: target.pid, 3, ["wrok", "work"]),
    ],
    ids=["no process", "kernel thread", "no function"],
)
def test_what_cannot_be_traced(pid: Any, exit_code: int, words: list[str]) -> None:
    """A process that is not there, the kernel's own and a misspelt function are refused in a sentence that helps."""
    with running(build.c_program("loop"), "--calls", 1) as target:
        command = [str(CORAL), "trace", str(pid(target)), "wrok", "-d", "1s"]
        done = subprocess.run(command, capture_output=True, env=clean_environment(), timeout=60, check=False, text=True)
        assert done.returncode == exit_code, done.stderr
        assert done.stdout == ""
        for word in words:
            assert word in done.stderr
        assert "Traceback" not in done.stderr
        assert changed_text(target.pid) == []
