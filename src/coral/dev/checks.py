"""What a check of `coral doctor` comes to."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass
from typing import Any

from coral.model.errors import CoralError


class Status(enum.StrEnum):
    """What a check found."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: Which.
        status: What was found.
        message: The finding, in a sentence.
        hint: What to do about it; empty when nothing is to be done.
    """

    name: str
    status: Status
    message: str
    hint: str = ""

    def document(self) -> dict[str, Any]:
        """As ``-o json`` has it."""
        return asdict(self)


def passed(name: str, message: str) -> Check:
    """Nothing is wrong."""
    return Check(name=name, status=Status.OK, message=message)


def warned(name: str, message: str, hint: str) -> Check:
    """It works, but not as well as it could."""
    return Check(name=name, status=Status.WARN, message=message, hint=hint)


def failed(name: str, message: str, hint: str) -> Check:
    """It does not work."""
    return Check(name=name, status=Status.FAIL, message=message, hint=hint)


def failed_by(name: str, error: CoralError) -> Check:
    """It does not work, for the reason that was raised."""
    return failed(name, error.message, error.hint or "See the documentation: docs/operations.md.")
