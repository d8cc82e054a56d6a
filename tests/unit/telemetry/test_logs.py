"""What the daemons' logs look like."""

from __future__ import annotations

import errno
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from coral.telemetry.logs import configure


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    """Leaves logging as it was."""
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    yield
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


def test_json_lines_when_nobody_watches() -> None:
    """One JSON object a line, with time and level, control characters escaped."""
    out = io.StringIO()
    configure(stream=out)
    structlog.get_logger().info("attached", service="a\x1b[31m\nb", sites=3)
    [line] = out.getvalue().splitlines()
    entry = json.loads(line)
    assert entry.pop("time").endswith("Z")
    assert entry == {"message": "attached", "level": "info", "service": "a\x1b[31m\nb", "sites": 3}
    assert "\x1b" not in line


def test_readable_lines_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for people, in which a name cannot steer the terminal."""
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    configure(stream=out)
    structlog.get_logger().warning("skipped", service="a\x1b[31m\nb", pid=7)
    assert out.getvalue().endswith("[warning  ] skipped pid=7 service=a\\x1b[31m\\nb\n")
    assert "\x1b" not in out.getvalue()


def test_no_secret_is_written() -> None:
    """Values under names of credentials are replaced."""
    out = io.StringIO()
    configure(stream=out)
    structlog.get_logger().info("joined", join_token="t0p", Authorization="Bearer t0p")
    assert "t0p" not in out.getvalue()


def test_verbosity_adds_debugging() -> None:
    """Debug lines come with -v only."""
    for verbosity, lines in ((0, 0), (1, 1)):
        out = io.StringIO()
        configure(verbosity=verbosity, stream=out)
        structlog.get_logger().debug("detail")
        assert len(out.getvalue().splitlines()) == lines


def test_libraries_log_in_the_same_form() -> None:
    """The standard library's loggers, with their tracebacks, become lines of the same kind."""
    out = io.StringIO()
    configure(stream=out)
    try:
        int("no\x1b")
    except ValueError:
        logging.getLogger("grpc").exception("it %s", "broke")
    [line] = out.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["message"], entry["level"]) == ("it broke", "error")
    assert entry["exception"].endswith(r"ValueError: invalid literal for int() with base 10: 'no\x1b'")


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("out", [Full(), io.StringIO()], ids=["full", "closed"])
def test_what_cannot_be_logged_is_lost(out: io.StringIO) -> None:
    """A full disk or a closed stream ends no thread that has something to say."""
    configure(stream=out)
    if not isinstance(out, Full):
        out.close()
    structlog.get_logger().info("attached")
    logging.getLogger("library").warning("likewise")
