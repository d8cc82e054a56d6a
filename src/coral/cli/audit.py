"""Shows, exports and verifies the audit log of a colony."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coral.cli.documents import Document
from coral.cli.listings import emit_items
from coral.cli.options import Globals
from coral.cli.output import emit, emit_bytes, emit_document, narrate
from coral.cli.tables import emit_table
from coral.cli.times import local_clock, rfc3339
from coral.client.audit import AuditClient
from coral.client.colony import ColonyClient
from coral.model.errors import FailedPrecondition
from coral.model.text import printable
from coral.wire._generated.colony.v1 import audit_pb2
from coral.wire.convert import timestamp_ns

_CHECKPOINT_DECIMALS = 6


async def show_records(options: Globals, request: audit_pb2.QueryAuditRequest, *, limit: int) -> None:
    """Prints matching records."""
    async with ColonyClient(options.endpoint()) as colony:
        records = [record async for record in AuditClient(colony).query(request, limit=limit)]
    if options.form != "table":
        emit_items(options, [record_document(record) for record in records])
        return
    if not records:
        narrate("No record.")
        return
    rows = [
        (
            str(record.sequence),
            local_clock(timestamp_ns(record.time), date=True),
            record.principal,
            record.address,
            record.action,
            " ".join(filter(None, (record.service_name, record.function_name, record.agent_id))),
            record.session_id,
            record.decision,
            record.outcome,
            record.reason,
        )
        for record in records
    ]
    emit_table(
        ("NUMBER", "TIME", "WHO", "FROM", "ACTION", "ON", "SESSION", "DECISION", "OUTCOME", "REASON"),
        rows,
        right=("NUMBER",),
        whole=("NUMBER", "TIME", "ACTION", "DECISION", "OUTCOME"),
        spare=("FROM", "SESSION"),
        color=options.color,
    )


async def write_export(options: Globals, path: Path | None) -> None:
    """Writes every record to a new file, or to stdout.

    Raises:
        FailedPrecondition: The file is there already, or cannot be written.
    """
    async with ColonyClient(options.endpoint()) as colony:
        if path is None:
            async for lines in AuditClient(colony).export():
                if sys.stdout.isatty():  # a colony that is not what it seems could send anything
                    emit("".join(f"{printable(line)}\n" for line in lines.decode(errors="replace").splitlines()))
                else:
                    emit_bytes(lines)
            return
        count = 0
        try:
            # Nobody else is to read it, and no file is to be overwritten: it may be evidence.
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                async for lines in AuditClient(colony).export():
                    file.write(lines)
                    count += lines.count(b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FailedPrecondition(f"{path} cannot be written: {error.strerror}.", hint="Name a new file.") from None
    narrate(f"{count:,} records in {path}. Check them with `coral audit verify {path} --public-key audit.pub`.")


async def show_verified(options: Globals) -> int:
    """Has the colony check its log, and prints what that came to; returns the exit code."""
    async with ColonyClient(options.endpoint()) as colony:
        found = await AuditClient(colony).verify()
    copies = {"table": _report(found.table)}
    if found.HasField("copy"):
        copies["copy"] = _report(found.copy)
    checkpoint = record_document(found.checkpoint) if found.HasField("checkpoint") else None
    return emit_verified(options, copies, checkpoint=checkpoint)


def emit_verified(options: Globals, copies: Mapping[str, Document], *, checkpoint: Document | None) -> int:
    """Writes what a check came to; returns the exit code."""
    ok = all(report["problem"] is None for report in copies.values())
    if options.form != "table":
        emit_document({"ok": ok, "copies": dict(copies), "checkpoint": checkpoint})
        return 0 if ok else 1
    for name, report in copies.items():
        span = f"{report['first']} to {report['last']}" if report["records"] else "none"
        signed = f"{report['checkpoints']:,} signed checkpoint{'' if report['checkpoints'] == 1 else 's'}"
        if report["problem"] is None:
            emit(f"{name}: {report['records']:,} records, {span}, with {signed}: all as they were written.\n")
        else:
            emit(printable(f"{name}: {report['problem']['kind'].upper()}: {report['problem']['message']}") + "\n")
    if checkpoint is not None and ok:
        narrate(f"Newest checkpoint: record {checkpoint['sequence']}, hash {checkpoint['hash']}.")
    return 0 if ok else 1


def record_document(record: audit_pb2.AuditRecord) -> Document:
    """A record, as a line of the log has it."""
    texts: Sequence[str] = (
        "principal", "role", "address", "action", "service_name", "function_name", "session_id", "agent_id", "reason",
        "decision", "outcome", "previous_hash", "hash",
    )  # fmt: skip
    return {
        "sequence": record.sequence,
        "time": rfc3339(timestamp_ns(record.time), decimals=_CHECKPOINT_DECIMALS),
        **{name: getattr(record, name) for name in texts},
    }


def _report(report: audit_pb2.AuditReport) -> Document:
    problem: dict[str, Any] | None = None
    if report.HasField("problem"):
        problem = {"sequence": report.problem.sequence, "kind": report.problem.kind, "message": report.problem.message}
    return {
        "records": report.records,
        "first": report.first_sequence,
        "last": report.last_sequence,
        "checkpoints": report.checkpoints,
        "problem": problem,
    }
