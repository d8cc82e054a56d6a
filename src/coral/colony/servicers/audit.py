"""``coral.colony.v1.AuditService``: the audit log, and the removal of data that it tells of."""

# ruff: noqa: N802  (the methods are named as the wire names them)

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from coral.colony.audit import Audit
from coral.colony.audit.reading import AuditQuery, export, find
from coral.colony.audit.verification import verify
from coral.colony.purge import Purge, Purged, Purger, events_of
from coral.model.errors import InvalidArgument
from coral.model.principal import current_principal
from coral.model.text import check_name
from coral.trust.chain import Record, time_ns
from coral.trust.evidence import Report
from coral.wire._generated.colony.v1 import audit_pb2, audit_pb2_grpc
from coral.wire.convert import timestamp, timestamp_ns
from coral.wire.paging import make_token, page_size, read_token

_FILTERS = ("principal", "action", "decision", "service_name", "session_id")
_PAGE = 100
_YEAR_10000_NS = 253_402_300_800 * 10**9
_MAX_PAGE = 1_000
_MAX_LISTED = 10_000


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """Answers ``coral audit`` and ``coral data purge``."""

    def __init__(self, *, audit: Audit, purger: Purger) -> None:
        self._audit = audit
        self._purger = purger

    async def QueryAudit(self, request: audit_pb2.QueryAuditRequest, context: Any) -> audit_pb2.QueryAuditResponse:
        """A page of records, newest first."""
        # What is asked for is its reason: a session's records are what was done to it, not who read them.
        asked = " ".join(f"{name}={getattr(request, name)}" for name in _FILTERS if getattr(request, name))
        entry = self._audit.entry(current_principal(), "QueryAudit", reason=asked)
        upto = self._audit.writer.head.sequence  # without the records of this query itself
        async with self._audit.noting(entry):
            for name in _FILTERS:
                check_name(getattr(request, name), name, required=False)
            query = AuditQuery(
                since_ns=_moment(request.since, "since") if request.HasField("since") else None,
                until_ns=_moment(request.until, "until") if request.HasField("until") else None,
                principal=request.principal,
                action=request.action,
                decision=request.decision,
                service_name=request.service_name,
                session_id=request.session_id,
            )
            query.check()
            size = page_size(request.page_size, field="page_size", default=_PAGE, maximum=_MAX_PAGE)
            before = int(read_token(request.page_token, query.identity)["before"]) if request.page_token else upto + 1
            # One more than asked for says whether there is another page.
            found = await find(self._audit, query, before=before, limit=size + 1)
            response = audit_pb2.QueryAuditResponse(records=[_record(record) for record in found[:size]])
            if len(found) > size:
                response.next_page_token = make_token(query.identity, {"before": found[size - 1].sequence})
            return response

    async def ExportAudit(self, request: audit_pb2.ExportAuditRequest, context: Any) -> AsyncIterator[audit_pb2.AuditLines]:
        """Every record up to now."""
        async with self._audit.noting(self._audit.entry(current_principal(), "ExportAudit")):
            async for lines in export(self._audit):
                yield audit_pb2.AuditLines(lines=lines)

    async def VerifyAudit(self, request: audit_pb2.VerifyAuditRequest, context: Any) -> audit_pb2.VerifyAuditResponse:
        """Checks both copies."""
        async with self._audit.noting(self._audit.entry(current_principal(), "VerifyAudit")):
            found = await verify(self._audit)
            newest = await find(self._audit, AuditQuery(action="AuditCheckpoint"), before=None, limit=1)
            return audit_pb2.VerifyAuditResponse(
                ok=found.ok,
                table=_report(found.table),
                copy=_report(found.copy) if found.copy else None,
                checkpoint=_record(newest[0]) if newest else None,
            )

    async def PurgeData(self, request: audit_pb2.PurgeDataRequest, context: Any) -> audit_pb2.PurgeDataResponse:
        """Removes ended sessions."""
        entry = self._audit.entry(
            current_principal(),
            "PurgeData",
            service_name=request.service_name,
            session_id=request.session_id,
            reason=f"dry run. {request.reason}".strip() if request.dry_run else request.reason,
        )
        async with self._audit.noting(entry):
            purge = Purge(
                before_ns=_moment(request.before, "before") if request.HasField("before") else None,
                service_name=request.service_name,
                session_id=request.session_id,
            )
            sessions = await self._purger.find(purge)
            freed = 0 if request.dry_run else await self._purger.remove(sessions)
            return audit_pb2.PurgeDataResponse(
                sessions=[_purged(session) for session in sessions[:_MAX_LISTED]],
                session_count=len(sessions),
                event_count=events_of(sessions),
                freed_bytes=max(0, freed),
            )


def _moment(message: Timestamp, field: str) -> int:
    """The ns since the epoch of a time that a caller gave.

    Raises:
        InvalidArgument: It is none that the tables could hold.
    """
    value_ns = timestamp_ns(message)
    if not 0 <= value_ns < _YEAR_10000_NS:
        raise InvalidArgument(f"{field} is no time.", hint="Give one from 1970 to 9999.")
    return value_ns


def _record(record: Record) -> audit_pb2.AuditRecord:
    return audit_pb2.AuditRecord(
        sequence=record.sequence,
        time=timestamp(time_ns(record.time)),
        principal=record.principal,
        role=record.role,
        address=record.address,
        action=record.action,
        service_name=record.service_name,
        function_name=record.function_name,
        session_id=record.session_id,
        agent_id=record.agent_id,
        reason=record.reason,
        decision=record.decision,
        outcome=record.outcome,
        previous_hash=record.previous_hash,
        hash=record.hash,
    )


def _report(report: Report) -> audit_pb2.AuditReport:
    problem = report.problem
    return audit_pb2.AuditReport(
        records=report.records,
        first_sequence=report.first,
        last_sequence=report.head.sequence,
        checkpoints=report.checkpoints,
        problem=audit_pb2.AuditProblem(sequence=problem.sequence, kind=problem.kind, message=problem.message)
        if problem
        else None,
    )


def _purged(session: Purged) -> audit_pb2.PurgedSession:
    return audit_pb2.PurgedSession(
        session_id=session.session_id,
        service_name=session.service_name,
        function_name=session.function_name,
        ended_at=timestamp(session.ended_at_ns),
        event_count=session.events,
    )
