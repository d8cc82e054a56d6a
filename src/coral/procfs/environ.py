"""The environment that a process was started with, and whether its program has written over it.

/proc/PID/environ shows memory of the process, from where exec put the strings. nginx, Redis, PostgreSQL, gunicorn and other
users of the setproctitle trick move their environment away, and write a title over arguments and environment, padded with
NULs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

_ENTRY = re.compile(rb"([^=\s\x00-\x1f\x7f]+)=(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Environ:
    """One reading of /proc/PID/environ.

    Attributes:
        variables: By name; of several of one name the first counts, as for getenv(3). Never printed: it holds secrets.
        overwritten: Whether the area holds something else by now, so that what is missing from it may have been there.
    """

    variables: Mapping[str, str]
    overwritten: bool

    def __repr__(self) -> str:
        return f"Environ({len(self.variables)} variables, overwritten={self.overwritten})"


def parse_environ(data: bytes) -> Environ:
    """Parses ``NAME=VALUE`` strings, each ended by a NUL. What is not one is left out, and makes it ``overwritten``.

    A process that was started with an empty environment has no data at all, which is not overwritten.
    """
    variables: dict[str, str] = {}
    overwritten = False
    for item in data.removesuffix(b"\0").split(b"\0") if data else ():
        match = _ENTRY.fullmatch(item)
        if match:
            variables.setdefault(os.fsdecode(match[1]), os.fsdecode(match[2]))
        else:
            overwritten = True
    return Environ(variables=variables, overwritten=overwritten)
