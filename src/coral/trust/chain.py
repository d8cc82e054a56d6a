r"""Records of the audit log, chained by hashes so that none can be changed, removed or moved unseen.

A record is one line of JSON: the fields of ``Record`` in their order, without spaces, text as UTF-8. ``hash`` comes last. It
is the SHA-256, in hexadecimal, of the same line without it; ``previous_hash``, the hash of the record before, is part of what
is hashed. The first record of all has 64 zeros there. Texts hold printable characters only, so every JSON writer escapes the
same two, ``"`` and ``\``, and a line can be checked without Coral::

    jq -cj 'del(.hash)' <<< "$line" | sha256sum
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta

from coral.model.text import printable

START = "0" * 64
"""What stands for the hash before the first record."""
MAX_LINE_BYTES = 65_536
MAX_TEXT = 1024
DECISIONS = ("allow", "deny", "error")
_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # json.dumps would make one for each line
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_SEQUENCE = 2**53 - 1  # what every reader of JSON can hold exactly


class NoRecord(ValueError):
    """A line is not a record in the one form that records have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of the audit log. Its fields are those of the JSON, in that order.

    Attributes:
        sequence: Its number, rising by one, from 1.
        time: When it was written, RFC 3339 in UTC with microseconds.
        principal: Who, as the credential proves.
        role: What that principal may be, several joined by commas.
        address: Where the call came from, HOST:PORT.
        action: What: the name of the RPC.
        service_name: On which service; empty, as the rest, where there is nothing to say.
        function_name: On which function.
        session_id: Which session.
        agent_id: Which agent.
        reason: Why, as the caller says; of some actions what else there is to know.
        decision: ``allow``, ``deny`` or ``error``.
        outcome: ``started`` before the act; after it ``ok``, or the name of a status.
        previous_hash: That of the record before.
        hash: Of this record without it.
    """

    sequence: int
    time: str
    principal: str
    role: str
    address: str
    action: str
    service_name: str
    function_name: str
    session_id: str
    agent_id: str
    reason: str
    decision: str
    outcome: str
    previous_hash: str
    hash: str = ""

    def line(self) -> bytes:
        """It as a line of the JSON Lines copy, without the line break."""
        return _json({name: getattr(self, name) for name in FIELDS})

    def digest(self) -> str:
        """What ``hash`` has to be."""
        return hashlib.sha256(_json({name: getattr(self, name) for name in FIELDS[:-1]})).hexdigest()


FIELDS = tuple(field.name for field in fields(Record))


def parse(line: bytes) -> Record:
    """The record in a line; its hashes are not checked.

    Raises:
        NoRecord: It is not one, or not in the form that records are written in, to the byte.
    """
    if len(line) > MAX_LINE_BYTES:
        raise NoRecord("the line is too long")
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        raise NoRecord("the line is not JSON") from None
    if not isinstance(document, dict) or tuple(document) != FIELDS:
        raise NoRecord("the line has not the fields of a record")
    sequence = document["sequence"]
    if type(sequence) is not int or not 0 < sequence <= _MAX_SEQUENCE:
        raise NoRecord("its sequence is no number that a record can have")
    if not all(isinstance(document[name], str) for name in FIELDS[1:]):
        raise NoRecord("one of its fields is no text")
    record = Record(**document)
    try:
        same = record.line() == line
    except UnicodeEncodeError:
        same = False
    if not same:
        raise NoRecord("the line is not written as records are")
    return record


def text(value: str) -> str:
    """A text as records hold it: printable, and not too long."""
    return printable(value[:MAX_TEXT])[:MAX_TEXT]


def time_text(time_ns: int) -> str:
    """A wall-clock time as records write it: ``2026-11-24T12:01:07.113204Z``; what is below a microsecond is cut off."""
    moment = _EPOCH + timedelta(microseconds=time_ns // 1000)
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def time_ns(value: str) -> int:
    """The wall-clock time, in ns, of what ``time_text`` wrote; 0 of anything else."""
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return 0
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000 if moment.tzinfo else 0


def _json(document: dict[str, str | int]) -> bytes:
    return _ENCODE(document).encode()
