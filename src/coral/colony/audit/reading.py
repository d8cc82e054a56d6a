"""Reading the audit log: a page of matching records, or all of it as it was written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from itertools import islice

import duckdb

from coral.colony.audit.log import Audit
from coral.colony.audit.table import COLUMNS, lines, row_record
from coral.model.errors import InvalidArgument, Unavailable
from coral.trust.chain import DECISIONS, Record

_CHUNK_LINES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    """What records are wanted, checked. Empty stands for all.

    Attributes:
        since_ns: From this time on; None for no bound.
        until_ns: Before this time; None for no bound.
        principal: Who.
        action: What.
        decision: ``allow``, ``deny`` or ``error``.
        service_name: On which service.
        session_id: Of which session.
    """

    since_ns: int | None = None
    until_ns: int | None = None
    principal: str = ""
    action: str = ""
    decision: str = ""
    service_name: str = ""
    session_id: str = ""

    def check(self) -> None:
        """Returns when it can have an answer.

        Raises:
            InvalidArgument: It cannot.
        """
        if self.decision and self.decision not in DECISIONS:
            raise InvalidArgument(f"{self.decision!r} is no decision.", hint=f"Choose one of {', '.join(DECISIONS)}.")
        if self.since_ns is not None and self.until_ns is not None and self.since_ns > self.until_ns:
            raise InvalidArgument("The times are the wrong way round.", hint="Give a since that is not after until.")

    @property
    def identity(self) -> dict[str, object]:
        """What a page token is bound to."""
        return {"audit": list(asdict(self).values())}


async def find(audit: Audit, query: AuditQuery, *, before: int | None, limit: int) -> list[Record]:
    """Matching records, newest first.

    Args:
        audit: The log.
        query: Which.
        before: Only with smaller numbers; None for all.
        limit: At most so many.

    Raises:
        Unavailable: The log cannot be read.
    """
    await audit.flush()
    where = {
        '"time" >= make_timestamptz(?::BIGINT)': None if query.since_ns is None else query.since_ns // 1000,
        '"time" < make_timestamptz(?::BIGINT)': None if query.until_ns is None else query.until_ns // 1000,
        "principal = ?": query.principal or None,
        "action = ?": query.action or None,
        "decision = ?": query.decision or None,
        "service_name = ?": query.service_name or None,
        "session_id = ?": query.session_id or None,
        "sequence < ?": before,
    }
    given = {clause: value for clause, value in where.items() if value is not None}
    statement = (
        f"SELECT {COLUMNS} FROM audit_log WHERE {' AND '.join(given) or 'true'} ORDER BY sequence DESC LIMIT {limit:d}"
    )
    found = await audit.database.read(lambda cursor: cursor.execute(statement, list(given.values())).fetchall())
    return [row_record(row) for row in found]


async def export(audit: Audit) -> AsyncIterator[bytes]:
    """Every record up to now as lines of JSON, a bounded part at a time; from the copy, or without one from the table.

    The last is a checkpoint, so that whoever takes it elsewhere can prove all of it.

    Raises:
        Unavailable: The log cannot be read.
    """
    await audit.sign()
    upto = audit.writer.head.sequence
    if audit.copy is not None:
        with await asyncio.wrap_future(audit.writer.between(audit.copy.snapshot)) as snapshot:
            reading = snapshot.lines()
            while part := await asyncio.to_thread(_part, reading):
                yield part
        return
    after = audit.writer.begins

    def read(cursor: duckdb.DuckDBPyConnection) -> list[bytes]:
        return list(islice(lines(cursor, begins=after, upto=min(upto, after + _CHUNK_LINES - 1)), _CHUNK_LINES))

    while after <= upto:
        yield b"".join(line + b"\n" for line in await audit.database.read(read))
        after += _CHUNK_LINES


def _part(reading: Iterator[bytes]) -> bytes:
    try:
        return b"".join(line + b"\n" for line in islice(reading, _CHUNK_LINES))
    except OSError as error:
        raise Unavailable(
            f"The audit log cannot be read: {error.strerror or error}.", hint="Look at the files in the state directory."
        ) from None
