"""Checks both copies of a running colony's audit log against the chain, its signatures and the head that the colony has."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace

import duckdb

from coral.colony.audit import table
from coral.colony.audit.log import Audit
from coral.model.errors import DeadlineExceeded, Unavailable
from coral.trust.audit_files import Snapshot
from coral.trust.evidence import Head, Problem, Report, Tampering, check, refined

_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a check of the log came to.

    Attributes:
        table: Of the rows.
        copy: Of the JSON Lines; None for a log in memory.
    """

    table: Report
    copy: Report | None

    @property
    def ok(self) -> bool:
        """Whether every record is what was written."""
        return self.table.problem is None and (self.copy is None or self.copy.problem is None)


async def verify(audit: Audit) -> Verified:
    """Checks the log up to now.

    Raises:
        Unavailable: It cannot be read, or written.
        DeadlineExceeded: It takes too long.
    """
    keys = {audit.key.id: audit.key.public}

    def between() -> tuple[Head, int, Snapshot | None]:
        return audit.writer.head, audit.writer.begins, audit.copy.snapshot() if audit.copy else None

    try:
        head, begins, snapshot = await asyncio.wrap_future(audit.writer.between(between))
        await audit.flush()
        with snapshot or nullcontext():

            def job(cursor: duckdb.DuckDBPyConnection) -> Verified:
                def rows() -> Iterator[bytes]:
                    return table.lines(cursor, begins=begins, upto=head.sequence)

                of_table = check(rows, keys=keys, known=head, begins=begins)
                if snapshot is None:
                    return Verified(table=of_table, copy=None)
                of_copy = _bounded(check(snapshot.lines, keys=keys, known=head, begins=begins), head)
                if of_copy.problem is None:
                    of_table = refined(of_table, rows, snapshot.lines)
                elif of_table.problem is None:
                    of_copy = refined(of_copy, snapshot.lines, rows)
                return Verified(table=of_table, copy=of_copy)

            found = await audit.database.read(job, timeout_s=_TIMEOUT_S)
    except OSError as error:
        raise Unavailable(
            f"The audit log cannot be read: {error.strerror or error}.", hint="Look at the files in the state directory."
        ) from None
    except duckdb.InterruptException:
        raise DeadlineExceeded(
            f"The audit log was not checked within {_TIMEOUT_S:g} s.",
            hint="`coral audit export FILE`, and check that with `coral audit verify FILE`.",
        ) from None
    ahead = await audit.database.read(lambda cursor: table.last(cursor).sequence)
    if found.table.problem is None and ahead > audit.writer.head.sequence:
        return replace(found, table=_added(found.table, ahead))
    return found


def _bounded(report: Report, head: Head) -> Report:
    """The report of a copy that must not go on behind the head."""
    if report.problem is None and report.head.sequence > head.sequence:
        return _added(report, head.sequence + 1)
    return report


def _added(report: Report, sequence: int) -> Report:
    message = f"Record {sequence} was added at the end: the colony has written none of that number yet."
    return replace(report, problem=Problem(sequence=sequence, kind=Tampering.INSERTED, message=message))
