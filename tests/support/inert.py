"""Strings of people who mean harm, and what it means that they come out inert."""

from __future__ import annotations

import json
import re
from typing import Any

PRINTABLE = (
    "[bold red]alarm[/bold red]",
    "[link=https://evil.example]click[/link] :skull:",
    "'; DROP TABLE debug_sessions; --",
    "../../../../etc/passwd",
    "<img src=x onerror=alert(1)>",
    "${jndi:ldap://evil.example/a}",
    "%s%n{0.__class__}$(reboot)`reboot`",
    "=cmd|' /C calc'!A0",
    r"\x1b[31m\u202e",
    "😀" * 200,
)
"""May stand in a name, and mean nothing there."""

UNPRINTABLE = (
    "a\x1b[2J\x1b[1;1Hb",
    "a\x1b]0;title\x07b",
    "a\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\b",
    "a\x1b]52;c;cm0gLXJmIC8=\x07b",
    "a\x9b31mb",
    "a\r\nlevel=error message=forged",
    "a\x00b",
    "a\x08\x08\x7fb",
    "a\u202egnp.exe",
    "a\u200b\u2066\ufeff\u2028b",
    "a\U000e0041b",
)
"""Would steer a terminal, break a line of a log, or hide from the eye."""

_SGR = re.compile(r"\x1b\[[0-9;]*m")
"""Colours and weights, the one thing that Coral itself says to a terminal in a table."""


def assert_inert(text: str, *, terminal: bool = False) -> None:
    """Fails if anything in ``text`` would act on whoever shows it.

    Args:
        text: What a command wrote.
        terminal: Whether it went to a terminal, where colours may be.
    """
    plain = _SGR.sub("", text).replace("\r\n", "\n") if terminal else text
    acting = sorted({character for character in plain if character != "\n" and not character.isprintable()})
    assert not acting, (acting, text)


def json_document(text: str) -> Any:
    """The one document that ``text`` is, in ASCII."""
    assert_inert(text)
    assert text.isascii()
    return json.loads(text)


def json_lines(text: str) -> list[Any]:
    """The documents of ``text``, which has one on each line and nothing else, in ASCII."""
    return [json_document(line) for line in text.splitlines()]
