"""Attach and detach: one request, many agents."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import duckdb
import structlog
from ulid import ULID

from coral.colony.audit import Audit, Entry
from coral.colony.book import Ending, LiveCollector, LiveSession, SessionBook
from coral.colony.collectors import Collectors
from coral.colony.feed import Feed
from coral.colony.function_policies import FunctionPolicies
from coral.colony.refusal import named, refusal
from coral.colony.registry import Registry
from coral.colony.slots import Claim, Grant, Slots
from coral.colony.store import control
from coral.colony.store.collectors import put_collectors
from coral.colony.store.database import Database
from coral.colony.tasks import Tasks
from coral.colony.watch import Watch
from coral.model.errors import (
    CoralError,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from coral.model.principal import Kind, Principal
from coral.model.probe import ProbeSpec
from coral.model.service import Agent
from coral.model.session import ReasonCode, Session, Status
from coral.model.text import check_name
from coral.wire._generated.colony.v1 import debug_pb2
from coral.wire.convert import config_from, filter_from, requested_duration_ns

_log = structlog.get_logger(__name__)
_FINAL_LEDGER_S = 5.0
_MAX_REASON_BYTES = 1024
_NEWS_S = 600.0
"""For so long a host that went offline is named to those who would have expected it: as long as a session may last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """What an attach came to: the session, and a warning; empty if all went well."""

    session: Session
    warning: str


class Orchestrator:
    """Begins and ends sessions."""

    def __init__(
        self,
        *,
        control_db: Database,
        registry: Registry,
        collectors: Collectors,
        book: SessionBook,
        watch: Watch,
        audit: Audit,
        slots: Slots,
        tasks: Tasks,
        functions: FunctionPolicies,
    ) -> None:
        self._control = control_db
        self._registry = registry
        self._collectors = collectors
        self._book = book
        self._watch = watch
        self._audit = audit
        self._slots = slots
        self._tasks = tasks
        self._functions = functions

    async def attach(self, request: debug_pb2.AttachUprobeRequest, who: Principal) -> Attached:
        """Attaches a probe on every host that runs the service.

        A caller that goes away before the answer leaves nothing running: the attach is finished and then undone.

        Raises:
            CoralError: Refused; there is a row in the audit log and no session.
        """
        entry = self._audit.entry(
            who,
            "AttachUprobe",
            service_name=request.service_name,
            function_name=request.function_name,
            agent_id=request.agent_id,
            reason=request.reason,
        )
        try:
            spec = _checked(request)
            grant = await self._slots.grant(
                Claim(
                    user=who.name,
                    service_name=spec.service_name,
                    function_name=spec.function_name,
                    agent_ids=frozenset(agent.agent_id for agent in self._hosts(request)),
                    named=who.kind is not Kind.LOCAL,
                )
            )
        except asyncio.CancelledError:  # while it waited for a slot
            self._audit.outcome(entry, cancelled=True)
            raise
        except ResourceExhausted as error:
            await self._audit.denied(entry, error)
            raise
        except CoralError as error:
            await self._audit.refused(entry, error)
            raise
        attaching = self._tasks.spawn(self._attach(request, spec, grant, who, entry))
        try:
            return await asyncio.shield(attaching)
        except asyncio.CancelledError:
            if not attaching.cancelled():
                self._tasks.spawn(self._undo(attaching))
            raise

    async def detach(self, session_id: str, who: Principal) -> str:
        """Ends a session; one that has ended stays as it is.

        Returns:
            A warning; empty if all went well.

        Raises:
            NotFound: There is no such session.
        """
        entry = self._audit.entry(who, "DetachUprobe", session_id=session_id)
        try:
            check_name(session_id, "session_id")
            session = await self._book.view(session_id)
        except CoralError as error:
            await self._audit.refused(entry, error)
            raise
        entry = replace(entry, service_name=session.service_name, function_name=session.function_name)
        await self._audit.before(entry)
        live = self._book.get(session_id)
        warning = await self._detach(live, f"It was detached by {who.name}.") if live is not None else ""
        self._audit.outcome(entry)
        return warning

    async def end_all(self, reason: str) -> None:
        """Ends every session, for a cause that lies with the colony and not with who asked for it.

        Args:
            reason: As a sentence.
        """
        sessions = list(self._book)
        for live in sessions:
            if live.ending is None:
                live.ending = Ending(status=Status.DETACHED, reason_code=ReasonCode.LIMIT, reason=reason)
        await asyncio.gather(*(self._stop_all(live) for live in sessions))

    def _hosts(self, request: debug_pb2.AttachUprobeRequest) -> list[Agent]:
        """The agents to ask."""
        if request.agent_id:
            return [self._registry.online(request.agent_id)]
        return self._registry.hosts_of(request.service_name)

    async def _attach(
        self,
        request: debug_pb2.AttachUprobeRequest,
        spec: ProbeSpec,
        grant: Grant,
        who: Principal,
        entry: Entry,
    ) -> Attached:
        with grant:
            accepted_ns = time.time_ns() // 1000 * 1000
            agents = [self._registry.agent(agent_id) for agent_id in sorted(grant.claim.agent_ids)]
            session_id = str(ULID())
            entry = replace(entry, session_id=session_id)
            await self._audit.before(entry)
            kept = await self._authorised(request, agents, who, entry)
            live = LiveSession(
                session=Session(
                    session_id=session_id,
                    service_name=spec.service_name,
                    function_name=spec.function_name,
                    agent_id=agents[0].agent_id if len(agents) == 1 else "",
                    started_at_ns=accepted_ns,
                    expires_at_ns=accepted_ns + spec.duration_ns,
                    status=Status.PENDING,
                    requested_by=who.name,
                ),
                request=kept.SerializeToString(),
                feed=Feed(),
                asked=grant.claim.agent_ids,
                who=who,
            )

            def begin(connection: duckdb.DuckDBPyConnection) -> None:
                control.insert_session(connection, live.session, live.request)

            try:
                await self._control.write(begin)
            except CoralError as error:
                self._audit.outcome(entry, error)
                raise
            self._book.add(live)
        try:
            with self._collectors.starting([agent.agent_id for agent in agents]):
                attached, failures, warnings = await self._start_all(live, agents)
                # One that did not answer may have attached all the same.
                unanswered = (Unavailable, DeadlineExceeded)
                self._slots.doubt(live.session, [one for one, error in failures.items() if isinstance(error, unanswered)])
                if not attached:
                    raise refusal(self._registry, spec.service_name, failures)
                for collector in attached:
                    live.collectors[collector.collector_id] = collector
                live.asked = frozenset()
        except CoralError as error:
            self._audit.outcome(entry, error)
            await self._forget(live)
            raise
        missing = self._missing(request, failures)
        await self._begin(live, entry, attached, missing=" ".join(missing))
        warnings += missing
        if live.session.status is Status.PENDING:
            warnings.append("No instance is attached yet; the session becomes active when one is.")
        return Attached(session=live.view(), warning=" ".join(warnings))

    async def _authorised(
        self, request: debug_pb2.AttachUprobeRequest, agents: list[Agent], who: Principal, entry: Entry
    ) -> debug_pb2.AttachUprobeRequest:
        """The request as it is kept: with the functions that policies let it mean, where they speak of functions.

        Raises:
            PermissionDenied: They forbid one, or want an approval for it; that is in the audit log.
            CoralError: It cannot be found out.
        """
        kept = debug_pb2.AttachUprobeRequest()
        kept.CopyFrom(request)
        kept.ClearField("authorised")
        if not self._functions.apply_to(who):
            return kept
        try:
            kept.authorised.CopyFrom(await self._functions.authorise(who, kept, agents))
        except PermissionDenied as error:
            found = error.details.get("function", "")
            name = f"{entry.function_name} ({found})" if found else entry.function_name
            await self._audit.denied(replace(entry, function_name=name), error)
            raise
        except CoralError as error:
            self._audit.outcome(entry, error)
            raise
        return kept

    async def _start_all(
        self, live: LiveSession, agents: list[Agent]
    ) -> tuple[list[LiveCollector], dict[str, CoralError], list[str]]:
        outcomes = await asyncio.gather(*(self._collectors.start(live, agent) for agent in agents), return_exceptions=True)
        attached: list[LiveCollector] = []
        failures: dict[str, CoralError] = {}
        warnings: list[str] = []
        for agent, outcome in zip(agents, outcomes, strict=True):
            if isinstance(outcome, CoralError):
                failures[agent.agent_id] = outcome
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                collector, warning = outcome
                attached.append(collector)
                if warning:
                    warnings.append(f"{agent.agent_id}: {warning}")
        return attached, failures, warnings

    def _missing(self, request: debug_pb2.AttachUprobeRequest, failures: Mapping[str, CoralError]) -> list[str]:
        """The hosts that a session does not run on although they have the service, in sentences."""
        # An agent that was only asked in case it had a process that just started is no failure when it has none.
        known = {service.agent_id for service in self._registry.services(request.service_name)}
        missing = [
            f"{agent_id}: {failure}"
            for agent_id, failure in failures.items()
            if not isinstance(failure, NotFound) or agent_id in known
        ]
        if not request.agent_id and (
            offline := self._registry.offline_hosts_of(request.service_name, heard_within_s=_NEWS_S)
        ):
            missing.append(f"Offline, and taken in when back: {named(offline)}.")
        return missing

    async def _begin(self, live: LiveSession, entry: Entry, attached: list[LiveCollector], *, missing: str) -> None:
        """Writes a session that runs on at least one agent, and starts following it."""
        active = any(collector.status is Status.ACTIVE for collector in attached)
        live.session = replace(
            live.session,
            status=Status.ACTIVE if active else Status.PENDING,
            agent_id=attached[0].agent_id if len(attached) == 1 else "",
            reason=missing,
        )
        session = live.view()
        collectors = [collector.row() for collector in attached]

        def write(connection: duckdb.DuckDBPyConnection) -> None:
            put_collectors(connection, collectors)
            control.update_session(connection, session)

        try:
            await self._control.write(write)
        except CoralError:
            # What cannot be written must not run: the agents are told, and detach by themselves should that fail too.
            await self._stop_all(live)
            self._book.discard(live)
            raise
        self._audit.outcome(entry, agent_id=session.agent_id)
        for collector in attached:
            self._book.save_instances(collector)
        self._tasks.spawn(self._watch.session(live))
        if live.ending is not None:  # detached while it was being attached
            await self._stop_all(live)

    async def _forget(self, live: LiveSession) -> None:
        live.asked = frozenset()
        self._book.discard(live)
        try:
            await self._control.write(lambda connection: control.delete_sessions(connection, [live.session_id]))
        except Unavailable as error:  # a restart finds it pending without a collector, and ends it as failed
            _log.error("refused session not removed", session_id=live.session_id, error=str(error))

    async def _undo(self, attaching: asyncio.Task[Attached]) -> None:
        try:
            attached = await attaching
        except CoralError as error:
            _log.info("attach refused after its caller went away", error=str(error))
            return
        live = self._book.get(attached.session.session_id)
        if live is not None:
            await self._detach(live, "Its caller went away before it was answered.")

    async def _detach(self, live: LiveSession, reason: str) -> str:
        if live.ending is None:
            live.ending = Ending(status=Status.DETACHED, reason_code=ReasonCode.USER, reason=reason)
        warnings = await self._stop_all(live)
        try:
            async with asyncio.timeout(_FINAL_LEDGER_S):
                await live.ended.wait()
        except TimeoutError:
            warnings.append("The final ledger has not arrived yet; the session ends when it does.")
        return " ".join(warnings)

    async def _stop_all(self, live: LiveSession) -> list[str]:
        running = [collector for collector in live.current() if not collector.ended.is_set()]
        return [warning for warning in await asyncio.gather(*(self._stop(live, one) for one in running)) if warning]

    async def _stop(self, live: LiveSession, collector: LiveCollector) -> str:
        """Stops one collector; when its agent cannot be asked, the session ends without it."""
        try:
            await self._collectors.stop(self._registry.agent(collector.agent_id), collector.collector_id)
        except CoralError as error:
            reason = (
                f"Agent {collector.agent_id!r} could not be asked to detach: it does so by itself at the deadline, "
                "or when it is heard of again."
            )
            _log.warning("detach not confirmed", collector_id=collector.collector_id, error=str(error))
            collector.unknown = collector.unknown_since(live.session.started_at_ns, to_ns=live.now_ns, cause=reason)
            if live.ending is not None:
                live.ending.reason = f"{live.ending.reason} {reason}"
            self._book.end_collector(collector, Status.LOST, ReasonCode.AGENT_GONE, reason)
            return reason
        # If the agent does not know it (any more), its watch finds out now.
        return ""


def _checked(request: debug_pb2.AttachUprobeRequest) -> ProbeSpec:
    check_name(request.agent_id, "agent_id", required=False)
    if len(request.reason.encode()) > _MAX_REASON_BYTES:
        raise InvalidArgument("reason is too long.", hint=f"At most {_MAX_REASON_BYTES:,} bytes are allowed.")
    return ProbeSpec(
        service_name=request.service_name,
        function_name=request.function_name,
        duration_ns=requested_duration_ns(request),
        config=config_from(request.config),
        filter=filter_from(request.filter),
        sdk_addr=request.sdk_addr,
    )
