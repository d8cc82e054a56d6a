"""What all tests share: the running stack, and what happens where probes cannot be attached."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

pytest.register_assert_rewrite("support")  # so that an assertion there says what was compared, too
from support import stack as stacks  # noqa: E402

_NEEDS_ROOT = ("kernel", "programs")
_left_out = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--matrix`` runs every build of the ground-truth programs, which takes long, instead of a slice of them."""
    parser.addoption("--matrix", action="store_true", help="run every build of the ground-truth programs too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without root, the tests that attach probes are left out, and the summary says so loudly."""
    config.stash[_left_out] = []
    if not config.getoption("--matrix"):
        long = [item for item in items if item.get_closest_marker("matrix")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)
    if stacks.is_root():
        return
    needy = [item for item in items if any(item.get_closest_marker(name) for name in _NEEDS_ROOT)]
    items[:] = [item for item in items if item not in needy]
    config.hook.pytest_deselected(items=needy)
    config.stash[_left_out] = [item.nodeid for item in needy]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Names what did not run."""
    left_out = config.stash.get(_left_out, [])
    if left_out:
        terminalreporter.section("NOT RUN: attaching probes needs root", sep="!", red=True, bold=True)
        terminalreporter.line(f"{len(left_out)} tests of real probes did not run. Run the suite as root to have them:")
        for nodeid in left_out:
            terminalreporter.line(f"  {nodeid}")


@pytest.fixture(autouse=True)
def _logs_beside_what_commands_print() -> None:
    """A daemon that runs inside a test logs where daemons do: on stderr, as it is at that moment."""
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


@pytest.fixture(autouse=True)
def _the_umask_as_it_was() -> Iterator[None]:
    """A command that runs inside a test, and keeps its files to itself, does not have the next test's files be closed too."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test of real probes that skips itself has failed; one that failed shows what the daemons wrote."""
    report = yield
    if not any(item.get_closest_marker(name) for name in _NEEDS_ROOT):
        return report
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} skipped itself; what needs a real kernel fails where it cannot run."
    if report.failed:
        for daemon in [daemon for daemon in stacks.STARTED if daemon.log.exists()][-3:]:
            text = "\n".join(daemon.lines()[-25:])
            report.sections.append((f"log of coral {' '.join(daemon.arguments[:2])} ({daemon.log})", text))
    return report


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stacks.Stack]:
    """One ``coral dev`` for all tests that do not break it; each test has services of its own."""
    with stacks.dev_stack(tmp_path_factory.mktemp("dev")) as running:
        yield running


@pytest.fixture
def split(tmp_path: Path) -> Iterator[stacks.SplitStack]:
    """A colony and an agent of this test's own, to be killed and started again."""
    with stacks.split_stack(tmp_path) as running:
        yield running
