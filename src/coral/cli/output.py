"""Where output goes: data on stdout, narration on stderr. Only click is imported here."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from coral.model.errors import FailedPrecondition
from coral.model.text import printable


class Unwritable(FailedPrecondition):
    """What was asked for cannot be written to stdout."""


def emit(text: str) -> None:
    """Writes data to stdout.

    Raises:
        BrokenPipeError: Nobody reads any more.
        Unwritable: It cannot be written, for example because the disk is full.
    """
    try:
        sys.stdout.write(text)
    except OSError as error:
        raise _unwritable(error) from None


def emit_bytes(data: bytes) -> None:
    """Writes data to stdout as it is; raises as ``emit`` does."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
    except OSError as error:
        raise _unwritable(error) from None


def flush() -> None:
    """Hands what was emitted to the reader; raises as ``emit`` does."""
    try:
        sys.stdout.flush()
    except OSError as error:
        raise _unwritable(error) from None


def discard() -> None:
    """Sends the rest of stdout nowhere, or the interpreter would complain about what is still buffered as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def emit_document(document: Mapping[str, Any]) -> None:
    """Writes one JSON document as a line; a terminal gets it indented."""
    emit(json.dumps(document, indent=2 if sys.stdout.isatty() else None) + "\n")


def emit_line(document: Mapping[str, Any]) -> None:
    """Writes one JSON document as a line, whoever reads."""
    emit(json.dumps(document) + "\n")


def narrate(text: str) -> None:
    """Tells a person something, on stderr, a line at a time and with nothing in it that would steer a terminal."""
    click.echo("\n".join(printable(line) for line in text.splitlines()), err=True)


def _unwritable(error: OSError) -> OSError | Unwritable:
    if isinstance(error, BrokenPipeError):
        return error
    discard()
    return Unwritable(f"The result cannot be written: {error.strerror}.", hint="Is the disk full?")
