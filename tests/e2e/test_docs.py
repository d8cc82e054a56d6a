"""The documents are right: what they show in blocks marked ``sh run`` works, as printed.

A block marked so is run by bash in the checkout, with ``coral`` on PATH, a colony to ask, and the example shop running, as
after ``make dev``. The blocks of one document are one script, in order.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.build import ROOT, grpcurl
from support.cli import CORAL, clean_environment
from support.stack import Stack

pytestmark = pytest.mark.kernel

BLOCK = re.compile(r"^```sh run\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOCUMENTS = [path for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]) if BLOCK.search(path.read_text())]


@pytest.fixture(scope="module")
def shop() -> Iterator[None]:
    """The example shop, built and running."""
    subprocess.run(["make", "examples"], cwd=ROOT, check=True, capture_output=True, timeout=240)
    running = [
        subprocess.Popen([ROOT / "build" / "examples" / name], env=clean_environment(), stdout=subprocess.DEVNULL)
        for name in ("checkout", "pricing")
    ]
    yield
    for process in running:
        process.terminate()
        process.wait(timeout=10)


def test_there_are_commands_to_run() -> None:
    """The README shows commands, and they are among those that are run."""
    assert ROOT / "README.md" in DOCUMENTS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
@pytest.mark.usefixtures("shop")
def test_commands_work_as_printed(document: Path, stack: Stack) -> None:
    """Every command of the document ends with success."""
    script = "set -euo pipefail\n" + "\n".join(BLOCK.findall(document.read_text()))
    path = f"{CORAL.parent}:{grpcurl().parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-x", "-c", script],
        cwd=ROOT,
        env=clean_environment({"PATH": path, "CORAL_COLONY": stack.colony}),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
