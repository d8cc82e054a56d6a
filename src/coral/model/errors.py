"""The exception tree. Each class stands for one gRPC status; wire/errors.py and the CLI map it, nobody else does.

CoralError
├── InvalidArgument      the request cannot be right; repeating it will not help
│   └── AmbiguousName    several things answer to the name
├── NotFound             no such service, function, agent, session or collector
├── FailedPrecondition   found, but cannot be done on this host or to this function
├── ResourceExhausted    a limit is reached
├── Unavailable          the other side cannot be reached now
├── DeadlineExceeded     it did not answer in time
├── Unauthenticated, PermissionDenied
├── Unimplemented        the server has no such method
└── Internal             a defect of Coral, or of something below it
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class CoralError(Exception):
    """What went wrong, and what to do next.

    Attributes:
        code: The name of the gRPC status that stands for it.
        message: One sentence on what is wrong and where.
        hint: The next step, as a sentence; may be empty.
        details: Further facts, by name.
    """

    code: ClassVar[str] = "UNKNOWN"

    def __init__(self, message: str, *, hint: str = "", details: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = dict(details or {})

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class InvalidArgument(CoralError):
    """The request cannot be right."""

    code = "INVALID_ARGUMENT"


class AmbiguousName(InvalidArgument):
    """Several things answer to the name; the hint lists up to ten of them."""


class NotFound(CoralError):
    """There is nothing of that name; the hint gives the nearest ones."""

    code = "NOT_FOUND"


class FailedPrecondition(CoralError):
    """It exists, but this cannot be done to it as things are."""

    code = "FAILED_PRECONDITION"


class ResourceExhausted(CoralError):
    """A limit is reached."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(CoralError):
    """The other side cannot be reached now."""

    code = "UNAVAILABLE"


class DeadlineExceeded(CoralError):
    """No answer in time."""

    code = "DEADLINE_EXCEEDED"


class Unauthenticated(CoralError):
    """No credential, or a bad one."""

    code = "UNAUTHENTICATED"


class PermissionDenied(CoralError):
    """Known, but not allowed."""

    code = "PERMISSION_DENIED"


class Unimplemented(CoralError):
    """The server has no such method: it is of another kind, or of another version."""

    code = "UNIMPLEMENTED"


class Internal(CoralError):
    """A defect of Coral, or of something below it."""

    code = "INTERNAL"


def error_for(code: str) -> type[CoralError]:
    """The class that stands for a status name such as ``"NOT_FOUND"``; ``CoralError`` for one that has none."""
    for cls in _leaves(CoralError):
        if cls.code == code:
            return cls
    return CoralError


def _leaves(cls: type[CoralError]) -> list[type[CoralError]]:
    found = []
    for child in cls.__subclasses__():
        if child.code != cls.code:
            found.append(child)
        found.extend(_leaves(child))
    return found
