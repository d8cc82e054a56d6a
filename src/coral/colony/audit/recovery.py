"""Goes on with the log after a restart: finds where it stands, and completes the table where a crash left it behind the copy.

The copy is written first, so a crash may leave rows undone, and nothing else. What is missing although the last checkpoint
saw it in place was removed by somebody: it is left as it is, for ``verify`` to name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import structlog

from coral.colony.audit import table
from coral.colony.audit.copy import Copy
from coral.colony.store.database import Database
from coral.trust.audit_files import read_lines
from coral.trust.chain import NoRecord, Record, parse
from coral.trust.checkpoint import ACTION, LATEST_FILE, Checkpoint, CheckpointKey
from coral.trust.evidence import Head, check, checkpoint_of, sequences

_log = structlog.get_logger(__name__)
_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where the log stands.

    Attributes:
        head: The record that the next one continues.
        begins: The first record that is kept.
        committed: Up to where the table has what the copy has.
    """

    head: Head
    begins: int
    committed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    last: Head
    unchained: int


async def recover(database: Database, copy: Copy | None, key: CheckpointKey) -> Found:
    """Finds where the log stands, and completes the table.

    Raises:
        OSError: The copy cannot be read.
        Unavailable: The table cannot be written.
    """
    rows = await database.read(lambda cursor: _Rows(last=table.last(cursor), unchained=table.last_unchained(cursor)))
    begins = rows.unchained + 1
    start = Head(sequence=rows.unchained)
    if copy is None:
        head = rows.last if rows.last.sequence else start
        return Found(head=head, begins=begins, committed=head.sequence)
    copied = _last_record(copy)
    written = Head(sequence=copied.sequence, hash=copied.hash) if copied else start
    # The one that is kept apart was kept once it was in the table itself.
    checkpoint = _kept(copy, key)
    signed = checkpoint or _signed(copy, key)
    seen = checkpoint[0].sequence if checkpoint else signed[1].table if signed else 0
    if signed is not None:
        begins = signed[1].first
    committed = rows.last.sequence
    # Rows that went with a damaged file are no tampering, if what the copy has is as it was written.
    lost = any(aside.file.startswith(database.name) for aside in database.set_aside) and _whole(copy, key, written, begins)
    behind = written.sequence > rows.last.sequence and (rows.last.sequence >= seen or lost)
    if behind and await _continues(database, copy, rows.last):
        committed = await _complete(database, copy, max(rows.last.sequence, begins - 1))
    elif written.sequence != rows.last.sequence:
        _log.error(
            "the copies of the audit log differ: `coral audit verify` says where",
            copy=written.sequence,
            table=rows.last.sequence,
        )
    heads = [start, rows.last, written]
    if checkpoint is not None:
        heads.append(Head(sequence=checkpoint[0].sequence, hash=checkpoint[0].hash))
    head = max(heads, key=lambda one: one.sequence)
    if head.sequence > max(written.sequence, rows.last.sequence):
        _log.error(
            "the audit log ends before its last checkpoint: `coral audit verify` says where",
            checkpoint=head.sequence,
            copy=written.sequence,
            table=rows.last.sequence,
        )
    return Found(head=head, begins=begins, committed=max(committed, rows.last.sequence))


def _kept(copy: Copy, key: CheckpointKey) -> tuple[Record, Checkpoint] | None:
    """The newest checkpoint, as it is kept apart; None if there is none that this colony signed."""
    path = copy.folder / LATEST_FILE
    try:
        return checkpoint_of(next(read_lines(path), b""), {key.id: key.public})
    except FileNotFoundError:
        return None
    except ValueError as error:
        _log.error("the kept audit checkpoint is not this colony's", file=str(path), error=str(error))
        return None


def _signed(copy: Copy, key: CheckpointKey) -> tuple[Record, Checkpoint] | None:
    """The last checkpoint in the newest part of the copy."""
    for line in copy.newest_lines():
        if ACTION.encode() in line:
            try:
                return checkpoint_of(line, {key.id: key.public})
            except ValueError:
                continue
    return None


def _last_record(copy: Copy) -> Record | None:
    for line in copy.newest_lines():
        try:
            return parse(line)
        except NoRecord as error:
            _log.error("a line of the audit log is no record: `coral audit verify` says which", error=str(error))
    return None


async def _continues(database: Database, copy: Copy, last: Head) -> bool:
    """Whether the copy holds the table's last row, so that what comes after it belongs there."""
    if not last.sequence:
        return True
    return any(
        number == last.sequence and line.endswith(f'"hash":"{last.hash}"}}'.encode())
        for number, line in sequences(copy.lines_from(last.sequence))
    )


def _whole(copy: Copy, key: CheckpointKey, written: Head, begins: int) -> bool:
    """Whether the copy can stand in for the table."""
    with copy.snapshot() as snapshot:
        problem = check(snapshot.lines, keys={key.id: key.public}, known=written, begins=begins).problem
    if problem is not None:
        _log.error("the table of the audit log was lost, and its copy is not whole", problem=problem.message)
    return problem is None


async def _complete(database: Database, copy: Copy, after: int) -> int:
    """Puts the records after a sequence into the table, all or none; returns the last one that is there."""
    expected = after
    for record in _records(copy, after):
        if record is None or record.sequence != expected + 1:
            _log.error("the audit log's copy is not whole: `coral audit verify` says where", after=after)
            return after
        expected += 1
    reached, missing = after, []
    for record in _records(copy, after):
        if record is not None:
            missing.append(record)
        if len(missing) == _AT_ONCE:
            reached = await _insert(database, missing)
            missing = []
    return await _insert(database, missing) if missing else reached


def _records(copy: Copy, after: int) -> Iterator[Record | None]:
    """The records of the copy after a sequence; None for a line that is none, with which it ends."""
    for number, line in sequences(copy.lines_from(after)):
        if number > after:
            try:
                yield parse(line)
            except NoRecord:
                yield None
                return


async def _insert(database: Database, missing: Sequence[Record]) -> int:
    await database.write(lambda connection: table.insert(connection, missing))
    _log.info("audit rows completed after a restart", rows=len(missing))
    return missing[-1].sequence
