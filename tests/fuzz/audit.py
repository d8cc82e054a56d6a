"""The proof of the audit log: whatever is done to a copy is noticed, and said in a sentence."""

from __future__ import annotations

import functools
import os
import random
from dataclasses import replace
from pathlib import Path

from coral.trust.audit_files import read_lines
from coral.trust.chain import START, Record, time_text
from coral.trust.checkpoint import ACTION, CheckpointKey
from coral.trust.evidence import Head, check, first_difference, refined
from fuzz.hostile_text import damaged, text

_RECORDS = 40
_CHECKPOINT_EVERY = 16


def case(randomness: random.Random) -> str:
    """One copy that somebody has been at."""
    lines, key, head = _log()
    kind = randomness.choice((_bytes, _moved, _forged, _cut))
    content = kind(randomness, list(lines))
    fd = os.memfd_create("audit.jsonl", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(content)
        path = Path(f"/proc/self/fd/{fd}")
        report = check(lambda: read_lines(path), keys={key.id: key.public}, known=head)
        same = list(read_lines(path)) == list(lines)
        assert (report.problem is None) == same, f"{kind.__name__}: {report}"
        if report.problem is None:
            return f"{kind.__name__}: as it was"
        assert report.problem.message.isprintable(), report.problem
        assert report.head.sequence < report.problem.sequence + _RECORDS, report
        first = first_difference(lambda: read_lines(path), lambda: lines)
        found = refined(report, lambda: read_lines(path), lambda: lines).problem
        assert found is not None
        assert first, "the copies differ, and no record is named"
        return f"{kind.__name__}: {found.kind}"
    finally:
        os.close(fd)


def _bytes(randomness: random.Random, lines: list[bytes]) -> bytes:
    return damaged(randomness, b"\n".join(lines) + b"\n")


def _moved(randomness: random.Random, lines: list[bytes]) -> bytes:
    for _ in range(randomness.choice((1, 1, 2))):
        one, other = randomness.randrange(len(lines)), randomness.randrange(len(lines))
        change = randomness.randrange(3)
        if change == 0:
            lines[one], lines[other] = lines[other], lines[one]
        elif change == 1:
            lines.insert(one, lines[other])
        elif len(lines) > 1:
            del lines[one]
    return b"\n".join(lines) + b"\n"


def _forged(randomness: random.Random, lines: list[bytes]) -> bytes:
    """Rewrites a record, with its hash, and everything that follows from it."""
    at = randomness.randrange(len(lines))
    records = [_parsed(line) for line in lines]
    change = {randomness.choice(("principal", "reason", "decision", "outcome", "service_name")): text(randomness)[:200]}
    records[at] = replace(records[at], **change)  # type: ignore[arg-type]
    previous = records[at - 1].hash if at else START
    for number in range(at, randomness.choice((at + 1, len(records)))):
        linked = replace(records[number], previous_hash=previous)
        records[number] = replace(linked, hash=linked.digest())
        previous = records[number].hash
    return b"\n".join(record.line() for record in records) + b"\n"


def _cut(randomness: random.Random, lines: list[bytes]) -> bytes:
    content = b"\n".join(lines) + b"\n"
    at = randomness.randrange(len(content))
    return content[:at] if randomness.random() < 0.5 else content[at:]


def _parsed(line: bytes) -> Record:
    from coral.trust.chain import parse

    return parse(line)


@functools.cache
def _log() -> tuple[tuple[bytes, ...], CheckpointKey, Head]:
    """An intact log with signed checkpoints, the key, and its last record."""
    key = CheckpointKey.ephemeral()
    records: list[Record] = []
    for number in range(1, _RECORDS + 1):
        record = Record(
            sequence=number,
            time=time_text(1_800_000_000_000_000_000 + number * 1_000_000),
            principal="ann",
            role="operator",
            address="10.0.0.1:4000",
            action="AttachUprobe",
            service_name="checkout",
            function_name="main.Pay",
            session_id=f"S{number}",
            agent_id="",
            reason="it is slow",
            decision="allow",
            outcome="ok",
            previous_hash=records[-1].hash if records else START,
        )
        if number % _CHECKPOINT_EVERY == 0:
            record = key.sign(replace(record, action=ACTION, service_name="", function_name=""), first=1, table=number - 1)
        else:
            record = replace(record, hash=record.digest())
        records.append(record)
    return tuple(record.line() for record in records), key, Head(sequence=_RECORDS, hash=records[-1].hash)
