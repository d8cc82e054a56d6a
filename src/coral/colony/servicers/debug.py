"""``coral.colony.v1.DebugService``: sessions, their events and results."""

# ruff: noqa: N802  (the methods are named as the wire names them)

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from coral.colony.audit import Audit, Entry
from coral.colony.book import SessionBook
from coral.colony.followers import Followers, Step
from coral.colony.orchestrator import Orchestrator
from coral.colony.queries import (
    EventsPage,
    EventsQuery,
    Queries,
    SessionsPage,
    SessionsQuery,
    events_query,
    next_token,
    sessions_query,
)
from coral.colony.servicers.messages import (
    histogram_message,
    outlier_messages,
    session_message,
    statistics_message,
    step_message,
)
from coral.colony.values import Item, OpenSight, Sight, rows_without_values, table_without_values
from coral.model.errors import CoralError, FailedPrecondition, InvalidArgument, PermissionDenied
from coral.model.principal import Principal, current_principal
from coral.model.session import Session
from coral.model.text import check_name
from coral.wire._generated.colony.v1 import debug_pb2, debug_pb2_grpc
from coral.wire._generated.mesh.v1 import ebpf_pb2
from coral.wire.convert import duration, filter_from, ledger_to, timestamp, timestamp_ns, uprobe_event

_FORMATS = ("summary", "full", "histogram")
_MAX_BYTES = 12 << 20
"""Of the items in one answer; messages may have 16 MiB."""


class DebugServicer(debug_pb2_grpc.DebugServiceServicer):
    """Answers whoever debugs; captured values only whom ``sight`` lets see them."""

    def __init__(
        self,
        *,
        orchestrator: Orchestrator,
        queries: Queries,
        followers: Followers,
        book: SessionBook,
        audit: Audit,
        sight: Sight | None = None,
    ) -> None:
        self._orchestrator = orchestrator
        self._queries = queries
        self._followers = followers
        self._book = book
        self._audit = audit
        self._sight = sight or OpenSight()

    async def AttachUprobe(self, request: debug_pb2.AttachUprobeRequest, context: Any) -> debug_pb2.AttachUprobeResponse:
        """Attaches; returns when the session is active, or pending for a library that is not loaded yet."""
        who = current_principal()
        attached = await self._orchestrator.attach(request, who)
        return debug_pb2.AttachUprobeResponse(
            session_id=attached.session.session_id,
            expires_at=timestamp(attached.session.expires_at_ns),
            success=True,
            error=attached.warning,
        )

    async def DetachUprobe(self, request: debug_pb2.DetachUprobeRequest, context: Any) -> debug_pb2.DetachUprobeResponse:
        """Ends a session."""
        who = current_principal()
        warning = await self._orchestrator.detach(request.session_id, who)
        return debug_pb2.DetachUprobeResponse(success=True, error=warning)

    async def QueryUprobeEvents(
        self, request: debug_pb2.QueryUprobeEventsRequest, context: Any
    ) -> debug_pb2.QueryUprobeEventsResponse:
        """Reads a page of stored events."""
        async with self._audit.noting(self._entry("QueryUprobeEvents", request.session_id)) as noted:
            query = events_query(
                session_id=request.session_id,
                start_ns=timestamp_ns(request.start_time) if request.HasField("start_time") else None,
                end_ns=timestamp_ns(request.end_time) if request.HasField("end_time") else None,
                max_events=request.max_events,
            )
            found = await self._queries.events(query, request.page_token)
            noted.about(found.session)
            if not await self._sight.sees_values(current_principal(), found.session):
                found = replace(found, events=list(rows_without_values(found.events)))
            # In a thread: ten thousand messages take a tenth of a second, in which the loop has agents to listen to.
            return await asyncio.to_thread(_events_response, query, found)

    async def ListDebugSessions(
        self, request: debug_pb2.ListDebugSessionsRequest, context: Any
    ) -> debug_pb2.ListDebugSessionsResponse:
        """Sessions, newest first."""
        entry = self._entry("ListDebugSessions", request.session_id, service_name=request.service_name)
        async with self._audit.noting(entry) as noted:
            query = sessions_query(
                service_name=request.service_name,
                status=request.status,
                session_id=request.session_id,
                size=request.page_size,
            )
            found = await self._queries.sessions(query, request.page_token)
            if query.session_id and found.sessions:
                noted.about(found.sessions[0])
            items = [_item(session) for session in found.sessions]
            seen = await self._sight.sees_items(current_principal(), "ListDebugSessions", items)
            return await asyncio.to_thread(_sessions_response, query, found, seen)

    async def GetDebugResults(
        self, request: debug_pb2.GetDebugResultsRequest, context: Any
    ) -> debug_pb2.GetDebugResultsResponse:
        """Statistics, the slowest calls, the ledger, and on request the histogram."""
        entry = self._entry("GetDebugResults", request.session_id, service_name=request.service_name)
        async with self._audit.noting(entry) as noted:
            form = request.format or "summary"
            if form not in _FORMATS:
                raise InvalidArgument(f"{form!r} is no format.", hint=f"Choose one of {', '.join(_FORMATS)}.")
            results = await self._queries.results(request.session_id, service_name=request.service_name)
            noted.about(results.session)
            slowest = results.slowest
            if not await self._sight.sees_values(current_principal(), results.session):
                slowest = list(rows_without_values(slowest))
            return debug_pb2.GetDebugResultsResponse(
                session_id=results.session.session_id,
                function=results.session.function_name,
                duration=duration(results.statistics.elapsed_ns),
                statistics=statistics_message(results.statistics),
                slow_outliers=outlier_messages(slowest),
                ledger=ledger_to(results.session.ledger),
                histogram=histogram_message(results.histogram) if form != "summary" else None,
            )

    async def UpdateProbeFilter(
        self, request: debug_pb2.UpdateProbeFilterRequest, context: Any
    ) -> debug_pb2.UpdateProbeFilterResponse:
        """Refuses: agents cannot change the filter of a probe that is attached."""
        async with self._audit.noting(self._entry("UpdateProbeFilter", request.session_id)) as noted:
            check_name(request.session_id, "session_id")
            filter_from(request.filter)
            session = await self._book.view(request.session_id)
            noted.about(session)
            if session.status.ended:
                raise FailedPrecondition(
                    f"Session {request.session_id!r} has ended.", hint="Attach again with the new filter."
                )
            raise FailedPrecondition(
                "The filter of a running session cannot be changed yet.", hint="Detach, and attach with the new filter."
            )

    async def FollowUprobeEvents(
        self, request: debug_pb2.FollowUprobeEventsRequest, context: Any
    ) -> AsyncIterator[ebpf_pb2.UprobeEventBatch]:
        """Streams what is stored, then what comes, then the end."""
        entry = self._entry("FollowUprobeEvents", request.session_id)
        try:
            check_name(request.session_id, "session_id")
            entry = entry.about(await self._book.view(request.session_id))
        except CoralError as error:
            await self._audit.refused(entry, error)
            raise
        await self._audit.before(entry)
        try:
            async for step in self._followers.follow(request.session_id, after=request.after):
                yield step_message(await self._shown(current_principal(), step))
        except CoralError as error:
            self._audit.outcome(entry, error)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self._audit.outcome(entry, cancelled=True)
            raise
        self._audit.outcome(entry)

    async def _shown(self, principal: Principal, step: Step) -> Step:
        """What a follower may see of a step; asked for each, since policies change while it follows.

        Raises:
            PermissionDenied: They do not let it follow any more.
        """
        [follows] = await self._sight.sees_items(principal, "FollowUprobeEvents", [_item(step.session)])
        if not follows:
            raise PermissionDenied(
                f"{principal.name} may not FollowUprobeEvents on service {step.session.service_name!r} any more: the "
                "policies changed.",
                hint="`coral policy explain` says why.",
                details={"action": "FollowUprobeEvents"},
            )
        if not step.events.num_rows or await self._sight.sees_values(principal, step.session):
            return step
        return replace(step, events=table_without_values(step.events))

    def _entry(self, action: str, session_id: str, *, service_name: str = "") -> Entry:
        who = current_principal()
        live = self._book.get(session_id)
        return self._audit.entry(
            who,
            action,
            session_id=session_id,
            service_name=service_name or (live.session.service_name if live else ""),
            function_name=live.session.function_name if live else "",
        )


def _item(session: Session) -> Item:
    return Item(service_name=session.service_name, function_name=session.function_name, owner=session.requested_by)


def _events_response(query: EventsQuery, found: EventsPage) -> debug_pb2.QueryUprobeEventsResponse:
    """A page as a message; of events too large for one message, only the first."""
    response = debug_pb2.QueryUprobeEventsResponse(ledger=ledger_to(found.session.ledger), has_more=found.more)
    size = 0
    for event in found.events:
        message = uprobe_event(event)
        size += message.ByteSize()
        if size > _MAX_BYTES and response.events:
            response.has_more = True
            break
        response.events.append(message)
    if response.has_more:
        response.next_page_token = next_token(query, found, len(response.events))
    return response


def _sessions_response(query: SessionsQuery, found: SessionsPage, seen: list[bool]) -> debug_pb2.ListDebugSessionsResponse:
    """What the caller may see of a page, as a message; of sessions too large for one, only the first."""
    response = debug_pb2.ListDebugSessionsResponse()
    size, more, last = 0, found.more, None
    for session, sees in zip(found.sessions, seen, strict=True):
        if sees:
            message = session_message(session)
            size += message.ByteSize()
            if size > _MAX_BYTES and response.sessions:
                more = True
                break
            response.sessions.append(message)
        last = session
    if more and last is not None:
        response.next_page_token = query.token(last)
    return response
