"""The daemons' logs: JSON lines on stderr, or readable lines when a person watches. Commands write none."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

if "rich" not in sys.modules:
    # structlog draws tracebacks with rich if it finds it. Coral has it do without: loading rich is a tenth of a daemon's
    # start. None says that there is no such module (importlib, "sys.modules").
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog

    del sys.modules["rich"]
else:
    import structlog

from coral.model.text import printable

QUIET = -1
"""A verbosity: errors alone, for a daemon that lives inside a command."""

_SECRET = ("token", "secret", "password", "authorization", "cookie", "credential")
_LEVELS = {QUIET: logging.ERROR, 0: logging.INFO, 1: logging.DEBUG}


class _Lossy:
    """A stream on which writing does not fail: a line that cannot be written is lost, and who logs it goes on.

    Else a full disk or a reader that went away would end whatever thread happens to have something to say.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        """Writes, if that is possible."""
        try:
            return self._out.write(text)
        except (OSError, ValueError):  # a ValueError: it is closed
            return len(text)

    def flush(self) -> None:
        """Hands on what was written, if that is possible."""
        try:
            self._out.flush()
        except (OSError, ValueError):
            return


def configure(*, verbosity: int = 0, stream: TextIO | None = None) -> None:
    """Sets up structlog, and the standard library's logging with the same form.

    Args:
        verbosity: How often ``-v`` was given: 0 logs what an operator should know, more adds debugging, ``QUIET``
            leaves errors only.
        stream: Where to; None is stderr.
    """
    out = stream or sys.stderr
    level = _LEVELS.get(verbosity, logging.DEBUG)
    form = _readable(out) if out.isatty() else _json()
    ours: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _without_secrets,
    ]
    structlog.configure(
        processors=[*ours, *form],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _Lossy(out))),
        cache_logger_on_first_use=stream is None,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=ours, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *form]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.INFO))  # what libraries say at debug level drowns what Coral says


def _json() -> list[structlog.typing.Processor]:
    # JSON escapes control characters by itself.
    return [structlog.processors.EventRenamer("message"), structlog.processors.JSONRenderer(default=str)]


def _readable(out: TextIO) -> list[structlog.typing.Processor]:
    colors = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return [
        _neutralised,
        structlog.dev.ConsoleRenderer(
            colors=colors, timestamp_key="time", exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        ),
    ]


def _without_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key in event:
        if any(word in key.lower() for word in _SECRET):
            event[key] = "[redacted]"
    return event


def _neutralised(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Names from binaries and processes reach the log; none may steer the terminal. Line breaks stay in tracebacks only."""
    for key, value in event.items():
        if key in ("exception", "stack"):
            event[key] = "\n".join(printable(line) for line in str(value).splitlines())
        elif isinstance(value, str):
            event[key] = printable(value)
        elif not isinstance(value, int | float | bool | None):
            event[key] = printable(str(value))
    return event
