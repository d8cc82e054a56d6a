"""One call as a line of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coral.cli.times import local_clock
from coral.model.text import format_duration, printable

_WIDEST_DURATION = len("1,000 ms")


def event_line(event: Mapping[str, Any], timestamp_ns: int, *, date: bool = False) -> str:
    """A line of an event document.

    Args:
        event: The document.
        timestamp_ns: Its time in ns since the epoch, for the viewer's own time zone.
        date: Whether to write the day too.

    Returns:
        Time, duration, pid, tid, function; then whatever else is there: arguments, return value, labels.
    """
    duration = format_duration(event["duration_ns"]) if event["event_type"] == "return" else event["event_type"]
    parts = [
        local_clock(timestamp_ns, decimals=6, date=date),
        duration.rjust(_WIDEST_DURATION),
        f"pid {event['pid']} tid {event['tid']}",
        event["function_name"],
    ]
    if event["args"]:
        arguments = ", ".join(f"{one['name']}={one['value']}" for one in event["args"])
        parts.append(f"({arguments})")
    if event["return_value"]:
        parts.append(f"= {event['return_value']['error_message'] or event['return_value']['value']}")
    parts += [f"{name}={value}" for name, value in event["labels"].items()]
    return printable("  ".join(parts))
