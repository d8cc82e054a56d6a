"""Checks a file of audit records without asking any colony."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coral.cli.audit import emit_verified
from coral.cli.documents import Document
from coral.cli.options import Globals
from coral.cli.output import narrate
from coral.model.errors import InvalidArgument
from coral.trust.audit_files import CURRENT_FILE, Snapshot, files, read_lines
from coral.trust.chain import Record
from coral.trust.checkpoint import LATEST_FILE, PUBLIC_FILE, Checkpoint, PublicKeys, key_id, read_public_key
from coral.trust.evidence import Head, Report, check, checkpoint_of


def show_checked(options: Globals, path: Path, *, key_paths: Sequence[Path], checkpoint_path: Path | None) -> int:
    """Checks a file, and prints what that came to.

    Args:
        options: The global options; the colony they name is not asked.
        path: A file of records; of a colony's current file, the full ones beside it count too.
        key_paths: Public keys that may have signed; when there is none, that of the colony in whose folder the file lies.
        checkpoint_path: A checkpoint that was kept elsewhere, which the file has to hold; None for that of the folder.

    Returns:
        The exit code.

    Raises:
        InvalidArgument: A file cannot be read, or is not what it is given as.
    """
    keys = _keys(path, key_paths)
    checkpoint = _checkpoint(path, checkpoint_path, keys)
    known = Head(sequence=checkpoint[0].sequence, hash=checkpoint[0].hash) if checkpoint else None
    begins = checkpoint[1].first if checkpoint else 1
    try:
        path.stat()
        with Snapshot(files(path)) as snapshot:
            report = check(snapshot.lines, keys=keys, known=known, begins=begins)
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}.", hint="Give a file of audit records.") from None
    if keys is None:
        narrate("Signatures are not checked: give the colony's audit.pub with --public-key.")
    elif not report.checkpoints and report.problem is None:
        narrate("There is no signed checkpoint in it: who wrote it is not proved.")
    if known is None:
        narrate("Whether records are missing at the end cannot be told: give a later checkpoint with --checkpoint.")
    return emit_verified(options, {str(path): _document(report)}, checkpoint=None)


def _keys(path: Path, given: Sequence[Path]) -> PublicKeys | None:
    beside = path.with_name(PUBLIC_FILE)
    if not given and path.name == CURRENT_FILE and beside.exists():
        narrate(f"The key is that of {beside}, which whoever changed the log could have changed too.")
        given = [beside]
    if not given:
        return None
    keys = [read_public_key(one) for one in given]
    return {key_id(key): key for key in keys}


def _checkpoint(path: Path, given: Path | None, keys: PublicKeys | None) -> tuple[Record, Checkpoint] | None:
    """The checkpoint that the file has to hold.

    Raises:
        InvalidArgument: The one that was given is none, or its signature cannot be checked.
    """
    beside = path.with_name(LATEST_FILE)
    if given is None and path.name == CURRENT_FILE and beside.exists() and keys is not None:
        given = beside
    if given is None:
        return None
    if keys is None:
        raise InvalidArgument(
            "A checkpoint is worth what its signature is.", hint="Give the colony's audit.pub with --public-key."
        )
    try:
        return checkpoint_of(next(read_lines(given), b""), keys)
    except OSError as error:
        raise InvalidArgument(f"{given} cannot be read: {error.strerror}.", hint="Give a checkpoint of the log.") from None
    except ValueError as error:
        raise InvalidArgument(f"{given} holds no checkpoint of this colony: {error}.", hint="Give another.") from None


def _document(report: Report) -> Document:
    problem = report.problem
    return {
        "records": report.records,
        "first": report.first,
        "last": report.head.sequence,
        "checkpoints": report.checkpoints,
        "problem": problem and {"sequence": problem.sequence, "kind": str(problem.kind), "message": problem.message},
    }
