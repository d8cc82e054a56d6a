"""Checks a chain of records, and names the first one that was changed, removed, moved or added.

Lines come from a source that can be read more than once, and are looked at one at a time: a log of years need not fit into
memory. Only where something is wrong, the rest is read again, to tell a record that stands elsewhere from one that is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import zip_longest

from coral.trust.chain import START, NoRecord, Record, parse
from coral.trust.checkpoint import Checkpoint, PublicKeys, check_signature, read_checkpoint

Lines = Callable[[], Iterable[bytes]]
"""Reads the lines of one copy from its beginning, without their line breaks."""


class Tampering(StrEnum):
    """What happened to a record."""

    CHANGED = "changed"
    REMOVED = "removed"
    REORDERED = "reordered"
    INSERTED = "inserted"
    TRUNCATED = "truncated"
    FORGED = "forged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The first record that is not what it was.

    Attributes:
        sequence: Its number.
        kind: What happened to it.
        message: The same as a sentence.
    """

    sequence: int
    kind: Tampering
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A place in the chain: the record ``sequence`` had this hash."""

    sequence: int = 0
    hash: str = START


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a check came to.

    Attributes:
        records: How many lines were looked at.
        first: The sequence of the first record; 0 if there is none.
        head: The last record that was right.
        checkpoints: How many signed checkpoints were among them.
        problem: What is wrong; None if nothing is.
    """

    records: int
    first: int
    head: Head
    checkpoints: int
    problem: Problem | None


def check(
    lines: Lines,
    *,
    keys: PublicKeys | None = None,
    known: Head | None = None,
    begins: int = 1,
) -> Report:
    """Checks one copy of the log.

    Args:
        lines: The copy.
        keys: Who may have signed checkpoints; None if that is not to be checked.
        known: A record that the chain must hold with this hash: the head that the colony has in mind, or a checkpoint.
        begins: The first record that was ever chained, or is kept according to a checkpoint known from elsewhere.
    """
    state = _Walk(lines, keys, begins)
    problem = None
    for line in lines():
        problem = state.take(line, known)
        if problem is not None:
            break
    if problem is None:
        problem = state.beginning() or state.end(known)
    return state.report(problem)


def first_difference(lines: Lines, others: Lines) -> int:
    """The sequence of the first record in ``lines`` that is not the same in ``others``; 0 if all are."""
    sequence = 0
    for mine, other in zip_longest(lines(), others()):
        if mine != other:
            break
        sequence = _sequence_of(mine) or sequence + 1
    else:
        return 0
    found = (_sequence_of(line) for line in (other, mine) if line is not None)
    return next((number for number in found if number), sequence + 1)


def refined(report: Report, lines: Lines, others: Lines) -> Report:
    """The report of a damaged copy, more exactly by what an undamaged one holds.

    Whoever rewrites a record together with its hash, or all that come after it, is noticed only later: where the next record
    does not continue it, at a checkpoint, or at the end.
    """
    if report.problem is None:
        return report
    sequence = first_difference(lines, others)
    if not 0 < sequence < report.problem.sequence:
        return report
    message = f"Record {sequence} was changed, together with its hash: the other copy has it differently."
    return replace(report, problem=Problem(sequence=sequence, kind=Tampering.CHANGED, message=message))


class _Walk:
    """One pass over a copy."""

    def __init__(self, lines: Lines, keys: PublicKeys | None, begins: int) -> None:
        self._lines = lines
        self._keys = keys
        self._begins = begins
        self._head: Head | None = None
        self._first = 0
        self._records = 0
        self._checkpoints = 0

    def take(self, line: bytes, known: Head | None) -> Problem | None:
        """Looks at the next line."""
        self._records += 1
        expected = self._head.sequence + 1 if self._head else None
        try:
            record = parse(line)
        except NoRecord as error:
            number = expected or self._begins
            if self._elsewhere(number, line):
                return _problem(number, Tampering.INSERTED, f"Before record {number} stands a line that is none: {error}.")
            return _problem(number, Tampering.CHANGED, f"Record {number} was changed: {error}.")
        problem = self._place(record, line, expected)
        if problem is None and record.digest() != record.hash:
            problem = self._changed(record, line)
        if problem is None and self._head and record.previous_hash != self._head.hash:
            problem = self._broken(record, line)
        if problem is None and record.sequence == 1 and record.previous_hash != START:
            problem = _problem(1, Tampering.CHANGED, "Record 1 was changed: it says that another one came before it.")
        if problem is None and known is not None and record.sequence == known.sequence and record.hash != known.hash:
            problem = _problem(
                record.sequence,
                Tampering.CHANGED,
                f"Record {record.sequence} is not the one that was written: its hash differs.",
            )
        if problem is None:
            problem = self._signed(record)
        if problem is None:
            self._first = self._first or record.sequence
            self._head = Head(sequence=record.sequence, hash=record.hash)
        return problem

    def beginning(self) -> Problem | None:
        """What is wrong with where the copy begins, once it has been read to its end."""
        if self._first <= self._begins:
            return None
        gone = f"record {self._begins}" if self._first == self._begins + 1 else f"records {self._begins} to {self._first - 1}"
        return _problem(
            self._begins, Tampering.REMOVED, f"Removed at the beginning: {gone}, and no signed checkpoint says so."
        )

    def end(self, known: Head | None) -> Problem | None:
        """What is wrong with where it ends."""
        reached = self._head.sequence if self._head else 0
        if known is None or reached >= known.sequence:
            return None
        missing = max(reached + 1, self._begins)
        return _problem(
            missing,
            Tampering.TRUNCATED,
            f"Cut off at the end: record {missing} is missing, and record {known.sequence} was written.",
        )

    def report(self, problem: Problem | None) -> Report:
        """What it came to."""
        return Report(
            records=self._records,
            first=self._first,
            head=self._head or Head(),
            checkpoints=self._checkpoints,
            problem=problem,
        )

    def _place(self, record: Record, line: bytes, expected: int | None) -> Problem | None:
        """Whether the record is where its number belongs."""
        number = record.sequence
        if expected is None:
            # Where a kept part begins is known once its checkpoints have been read.
            if number <= self._begins or not self._elsewhere(self._begins, line):
                return None
            expected = self._begins
        if number == expected:
            return None
        if record.digest() != record.hash:
            if self._elsewhere(expected, line):
                message = f"Before record {expected} stands one with the number {number} that was never written."
                return _problem(expected, Tampering.INSERTED, message)
            return _problem(expected, Tampering.CHANGED, f"Record {expected} was changed: it has the number {number}.")
        if number < expected:
            return _problem(number, Tampering.INSERTED, f"Record {number} is there more than once: one was inserted.")
        if self._elsewhere(expected, line):
            message = f"Record {expected} is not in its place: record {number} stands there."
            return _problem(expected, Tampering.REORDERED, message)
        gone = f"record {expected}" if number == expected + 1 else f"records {expected} to {number - 1}"
        return _problem(expected, Tampering.REMOVED, f"Removed: {gone}.")

    def _changed(self, record: Record, line: bytes) -> Problem:
        """The record has its place, and its content does not fit its hash."""
        number = record.sequence
        if self._elsewhere(number, line):
            return _problem(number, Tampering.INSERTED, f"Record {number} is there more than once: one was inserted.")
        for other in (number + 1, number - 1):
            if replace(record, sequence=other).digest() == record.hash:
                message = f"Record {number} is not in its place: what stands there was written as record {other}."
                return _problem(number, Tampering.REORDERED, message)
        return _problem(number, Tampering.CHANGED, f"Record {number} was changed: its content does not fit its hash.")

    def _broken(self, record: Record, line: bytes) -> Problem:
        """The record is whole, and does not continue the one before."""
        number = record.sequence
        if self._elsewhere(number, line):
            return _problem(number, Tampering.INSERTED, f"Record {number} is there more than once: one was inserted.")
        message = f"Record {number} does not continue record {number - 1}: one of the two was rewritten with its hash."
        return _problem(number, Tampering.CHANGED, message)

    def _signed(self, record: Record) -> Problem | None:
        """Whether a checkpoint was signed by who may sign."""
        number = record.sequence
        try:
            checkpoint = read_checkpoint(record)
            if checkpoint is None:
                return None
            if self._keys is not None:
                check_signature(record, checkpoint, self._keys)
        except ValueError as error:
            message = f"Checkpoint {number} was not written by the colony: {error}. What comes before it may be rewritten."
            return _problem(number, Tampering.FORGED, message)
        self._checkpoints += 1
        self._begins = max(self._begins, checkpoint.first)
        return None

    def _elsewhere(self, sequence: int, line: bytes) -> bool:
        """Whether another line has this number."""
        seen = False
        for other in self._lines():
            if other == line and not seen:
                seen = True  # the line itself
            elif _sequence_of(other) == sequence:
                return True
        return False


def _problem(sequence: int, kind: Tampering, message: str) -> Problem:
    return Problem(sequence=sequence, kind=kind, message=message)


_PREFIX = b'{"sequence":'


def sequences(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers, read without parsing the rest; what has none is left out."""
    for line in lines:
        if number := _sequence_of(line):
            yield number, line


def _sequence_of(line: bytes | None) -> int:
    """The number at the beginning of a line; 0 if there is none."""
    if line is None or not line.startswith(_PREFIX):
        return 0
    digits = line[len(_PREFIX) : len(_PREFIX) + 17].partition(b",")[0]
    return int(digits) if digits.isdigit() else 0


def checkpoint_of(line: bytes, keys: PublicKeys) -> tuple[Record, Checkpoint]:
    """A checkpoint that is kept apart from the log.

    Raises:
        ValueError: It is none, was changed, or nobody of ``keys`` signed it.
    """
    record = parse(line)
    if record.digest() != record.hash:
        raise ValueError("its content does not fit its hash")
    checkpoint = read_checkpoint(record)
    if checkpoint is None:
        raise ValueError("it is another record")
    check_signature(record, checkpoint, keys)
    return record, checkpoint
