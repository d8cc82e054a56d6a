"""What the agent gives up: every capability but those it needs, in all of its threads and in what it starts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from coral.agent.privileges import NEEDED

pytestmark = pytest.mark.kernel

_SCRIPT = """
import os, subprocess, sys, threading
from coral.agent import privileges
if "thread" in sys.argv:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
privileges.drop()
status = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status"
print(open("/proc/self/status").read())
print("CHILD")
print(subprocess.run(["sh", "-c", status], capture_output=True, text=True).stdout)
"""

_BLIND = """
import asyncio, os, signal, sys
from coral.agent import privileges
from coral.elf.image import ImageKey
from coral.elf.parser import Parser
from coral.model.errors import FailedPrecondition

async def main():
    fd = os.open("/proc/self/exe", os.O_RDONLY)
    async with parser:
        await parser.identify(fd, ImageKey.of_fd(fd), "exe")
        os.kill(parser.template_pid, signal.SIGKILL)
        for _ in range(2):
            try:
                await parser.plan(fd, ImageKey.of_fd(fd), "exe", "PyObject_Repr", library="", debug=[])
            except FailedPrecondition as error:
                print(error, parser.lost == error.message)

parser = Parser()
parser.start()
privileges.drop()
asyncio.run(main())
"""


def _fields(text: str) -> dict[str, int]:
    lines = (line.split(":\t") for line in text.splitlines() if line.startswith(("Cap", "NoNewPrivs")))
    return {name: int(value, 16) for name, value in lines}


def test_what_is_left_is_what_is_needed() -> None:
    """Effective, permitted and bounding sets hold the seven that are needed; children of root's own get none of them."""
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=30, check=True)
    own, child = done.stdout.split("CHILD")
    needed = sum(1 << number for number in NEEDED.values())
    nothing = {"CapInh": 0, "CapAmb": 0, "NoNewPrivs": 1}
    assert _fields(own) == {**nothing, "CapPrm": needed, "CapEff": needed, "CapBnd": needed}
    assert _fields(child) == {**nothing, "CapPrm": 0, "CapEff": 0, "CapBnd": needed}


def test_a_thread_that_would_keep_them_is_not_overlooked() -> None:
    """Capabilities are of threads: a process that has two already is refused rather than half confined."""
    command = [sys.executable, "-c", _SCRIPT, "thread"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert "The agent has 2 threads before its privileges are dropped" in done.stderr


def test_what_cannot_be_confined_as_before_reads_nothing() -> None:
    """Confining a reader takes privileges that are gone: when the template dies, no lesser one takes its place."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _BLIND]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
    first, second = done.stdout.splitlines()
    assert first.startswith("The process that reads files ended, and a new one would lack ")
    assert "own namespaces and an empty root directory: they take CAP_SYS_ADMIN" in first
    assert first.endswith("The agent has to be started again; it does so itself when it is idle. True")
    assert second == first
