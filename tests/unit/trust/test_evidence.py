"""The chain of the audit log: what was done to a record is found, and named."""

from __future__ import annotations

import base64
import json
import random
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.audit_chain import chain, rewritten

from coral.model.errors import FailedPrecondition, InvalidArgument
from coral.trust.chain import START, NoRecord, Record, parse, text
from coral.trust.checkpoint import CheckpointKey, read_public_key
from coral.trust.evidence import Head, Problem, Report, Tampering, check, first_difference, refined

KEY = CheckpointKey.ephemeral()
KEYS = {KEY.id: KEY.public}
WHOLE = chain(1000, KEY)
HEAD = Head(sequence=1000, hash=parse(WHOLE[-1]).hash)


def _check(lines: list[bytes], **options: object) -> Report:
    return check(lambda: lines, **{"keys": KEYS, "known": HEAD, **options})  # type: ignore[arg-type]


def test_an_untouched_log_holds() -> None:
    """A thousand records with ten checkpoints are what they were."""
    assert _check(WHOLE) == Report(records=1000, first=1, head=HEAD, checkpoints=10, problem=None)
    assert _check([], known=None) == Report(records=0, first=0, head=Head(), checkpoints=0, problem=None)


def _flip(at: int) -> Callable[[list[bytes]], None]:
    def tamper(lines: list[bytes]) -> None:
        line = bytearray(lines[at])
        line[len(line) // 2] ^= 1
        lines[at] = bytes(line)

    return tamper


def _swap(at: int) -> Callable[[list[bytes]], None]:
    def tamper(lines: list[bytes]) -> None:
        lines[at], lines[at + 1] = lines[at + 1], lines[at]

    return tamper


def _renumber(at: int) -> Callable[[list[bytes]], None]:
    """Two rows of a table are swapped by swapping all but their numbers: rows have no order of their own."""

    def tamper(lines: list[bytes]) -> None:
        one, two = parse(lines[at]), parse(lines[at + 1])
        lines[at] = replace(two, sequence=one.sequence).line()
        lines[at + 1] = replace(one, sequence=two.sequence).line()

    return tamper


def _put(at: int, line: bytes) -> Callable[[list[bytes]], None]:
    return lambda lines: lines.__setitem__(at, line)


@pytest.mark.parametrize(
    ("tamper", "sequence", "kind"),
    [
        (_flip(499), 500, Tampering.CHANGED),
        (_flip(0), 1, Tampering.CHANGED),
        (_flip(999), 1000, Tampering.CHANGED),
        (lambda lines: lines.pop(500), 501, Tampering.REMOVED),
        (lambda lines: lines.pop(0), 1, Tampering.REMOVED),
        (lambda lines: lines.__delitem__(slice(0, 150)), 1, Tampering.REMOVED),
        (lambda lines: lines.pop(), 1000, Tampering.TRUNCATED),
        (lambda lines: lines.__delitem__(slice(700, None)), 701, Tampering.TRUNCATED),
        (lambda lines: lines.clear(), 1, Tampering.TRUNCATED),
        (_swap(500), 501, Tampering.REORDERED),
        (_swap(0), 1, Tampering.REORDERED),
        (_renumber(500), 501, Tampering.REORDERED),
        (lambda lines: lines.insert(500, lines[500]), 501, Tampering.INSERTED),
        (lambda lines: lines.insert(500, rewritten(lines[500], principal="eve")), 501, Tampering.INSERTED),
        (lambda lines: lines.insert(500, lines[500].replace(b"ann@", b"eve@")), 501, Tampering.INSERTED),
        (lambda lines: lines.insert(500, b"{}"), 501, Tampering.INSERTED),
        (lambda lines: lines.append(rewritten(lines[-1], principal="eve")), 1000, Tampering.INSERTED),
        (_put(500, WHOLE[500].replace(b"ann@", b"eve@")), 501, Tampering.CHANGED),
        (_put(500, WHOLE[500].replace(b'":"', b'": "', 1)), 501, Tampering.CHANGED),
        # With its hash: the record after it does not continue it.
        (_put(500, rewritten(WHOLE[500], principal="eve")), 502, Tampering.CHANGED),
        (_put(499, rewritten(WHOLE[499], time="2026-01-01T00:00:00.000000Z")), 500, Tampering.FORGED),
    ],
)  # fmt: skip
def test_what_was_done_to_a_record_is_named(tamper: Callable[[list[bytes]], object], sequence: int, kind: Tampering) -> None:
    """Of a thousand records, the first that was changed, removed, moved or added is named, and what was done to it."""
    lines = list(WHOLE)
    tamper(lines)
    problem = _check(lines).problem
    assert isinstance(problem, Problem)
    assert (problem.sequence, problem.kind) == (sequence, kind), problem.message
    assert str(sequence) in problem.message


def _rechained(lines: list[bytes], at: int) -> list[bytes]:
    """As whoever can write the log, and has not the key, would change a record: with every later hash made anew."""
    lines, previous = list(lines), ""
    for index in range(at, len(lines)):
        changes: dict[str, str | int] = {"previous_hash": previous} if previous else {"principal": "eve"}
        lines[index] = rewritten(lines[index], **changes)
        previous = parse(lines[index]).hash
    return lines


def test_a_chain_made_anew_fails_at_the_next_checkpoint() -> None:
    """Hashes that were all computed again fit each other, and no signature; the other copy tells which record it was."""
    lines = _rechained(WHOLE, 750)
    found = _check(lines)
    assert found.problem is not None
    assert (found.problem.sequence, found.problem.kind) == (800, Tampering.FORGED)
    assert "signature does not hold" in found.problem.message
    exact = refined(found, lambda: lines, lambda: WHOLE)
    assert exact.problem is not None
    assert (exact.problem.sequence, exact.problem.kind) == (751, Tampering.CHANGED)
    # Behind the last checkpoint only who knows the head can tell.
    lines = _rechained(WHOLE[:990], 950)
    assert _check(lines, known=None).problem is None
    problem = _check(lines, known=Head(sequence=990, hash=parse(WHOLE[989]).hash)).problem
    assert problem is not None
    assert (problem.sequence, problem.kind) == (990, Tampering.CHANGED)


def test_another_key_is_not_the_colonys() -> None:
    """A log that somebody made and signed alone is refused by its first checkpoint; without a key nothing is said of that."""
    other = CheckpointKey.ephemeral()
    lines = chain(250, other)
    problem = _check(lines, known=None).problem
    assert problem is not None
    assert (problem.sequence, problem.kind) == (100, Tampering.FORGED)
    assert other.id in problem.message
    assert KEY.id in problem.message
    assert _check(lines, known=None, keys=None).problem is None


def test_the_kept_part_begins_where_a_checkpoint_says() -> None:
    """What retention removed is not missing, as far as a signed checkpoint says so."""
    kept = chain(300, KEY, first=301)
    assert _check(kept, known=None).problem is None
    problem = _check(kept[1:], known=None).problem
    assert problem is not None
    assert (problem.sequence, problem.kind) == (301, Tampering.REMOVED)
    problem = _check(kept[:50], known=None).problem  # no checkpoint among them
    assert problem is not None
    assert (problem.sequence, problem.kind) == (1, Tampering.REMOVED)
    assert _check(kept[:50], known=None, begins=301).problem is None


def test_the_first_difference_of_two_copies() -> None:
    """Two copies differ from the first record on that is not the same in both."""
    assert first_difference(lambda: WHOLE, lambda: WHOLE) == 0
    assert first_difference(lambda: WHOLE, lambda: WHOLE[:-1]) == 1000
    assert first_difference(lambda: WHOLE[:40] + WHOLE[41:], lambda: WHOLE) == 41
    assert first_difference(lambda: _rechained(WHOLE, 20), lambda: WHOLE) == 21


def test_a_line_can_be_checked_without_coral() -> None:
    """The hash is what sed and sha256sum compute, and what is signed can be put together by hand."""
    for line in (WHOLE[0], WHOLE[99]):
        command = r"""sed -E 's/,"hash":"[0-9a-f]{64}"\}$/}/' | tr -d '\n' | sha256sum"""
        told = subprocess.run(["bash", "-c", command], input=line, stdout=subprocess.PIPE, check=True).stdout
        assert told.split()[0].decode() == parse(line).hash
    record = json.loads(WHOLE[99])
    said = ["coral audit checkpoint v1", "100", record["time"], record["previous_hash"], "first=1", "table=99"]
    KEY.public.verify(
        base64.b64decode(record["reason"].partition("signature=")[2]), "".join(f"{line}\n" for line in said).encode()
    )


def test_every_byte_counts() -> None:
    """Whichever bit of whichever record is flipped, that record or the one after it is named."""
    chance = random.Random(7)
    small = chain(40, KEY, every=10)
    head = Head(sequence=40, hash=parse(small[-1]).hash)
    for _ in range(100):
        at = chance.randrange(40)
        line = bytearray(small[at])
        line[chance.randrange(len(line))] ^= 1 << chance.randrange(8)
        lines = [*small[:at], bytes(line), *small[at + 1 :]]
        problem = check(lambda lines=lines: lines, keys=KEYS, known=head).problem  # type: ignore[misc]
        assert problem is not None
        assert problem.sequence == at + 1, problem


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_line_is_a_record_or_none(line: bytes) -> None:
    """What is in the file of an attacker is refused, never an error of its reader's."""
    with pytest.raises(NoRecord):
        parse(line)
    assert check(lambda: [line, line], keys=KEYS).problem is not None


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 60_000,
        b"1" * 60_000,
        WHOLE[0] + b" " * 70_000,
        WHOLE[0].replace(b'"sequence":1', b'"sequence":1e0'),
        WHOLE[0].replace(b'"sequence":1', b'"sequence":true'),
        WHOLE[0].replace(b'"sequence":1', b'"sequence":' + b"9" * 30),
        WHOLE[0].replace(b'"role":"operator"', b'"role":null'),
        WHOLE[0].replace(b'"operator"', b'"\\ud800"'),
        WHOLE[0].replace(b'"operator"', b'"\xff"'),
        WHOLE[0].replace(b'{"seq', b'{"sequence":9,"seq'),
    ],
)  # fmt: skip
def test_lines_made_to_hurt(line: bytes) -> None:
    """Depth, length, numbers and text that a parser may stumble over are refused."""
    with pytest.raises(NoRecord):
        parse(line)


@given(st.text())
@settings(deadline=None)
def test_texts_are_inert(value: str) -> None:
    """Whatever a caller sends, a record holds it printable and bounded, and reads back as it was written."""
    record = parse(WHOLE[0])
    inert = text(value)
    assert inert.isprintable()
    assert len(inert) <= 1024
    changed: Record = replace(record, reason=inert)
    assert parse(changed.line()) == changed


def test_the_key_is_kept(tmp_path: Path) -> None:
    """A folder has one key, of mode 0600, whose public part lies beside it; what is no such key is refused."""
    key = CheckpointKey.of_folder(tmp_path)
    assert CheckpointKey.of_folder(tmp_path).id == key.id != KEY.id
    for name in ("audit.key", "audit.pub"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert read_public_key(tmp_path / "audit.pub") == key.public
    with pytest.raises(InvalidArgument, match="holds no public key"):
        read_public_key(tmp_path / "audit.key")
    with pytest.raises(InvalidArgument, match="cannot be read"):
        read_public_key(tmp_path / "nothing")
    (tmp_path / "audit.key").write_text("no key")
    with pytest.raises(FailedPrecondition, match="holds no private key"):
        CheckpointKey.of_folder(tmp_path)
    (tmp_path / "audit.key").chmod(0o640)
    with pytest.raises(FailedPrecondition, match="open to others"):
        CheckpointKey.of_folder(tmp_path)
    assert START == "0" * 64
