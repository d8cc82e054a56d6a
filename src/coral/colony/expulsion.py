"""Putting an agent out of the colony: from this moment nothing is taken from it, and nothing goes to it."""

from __future__ import annotations

import asyncio

import structlog

from coral.colony.book import LiveCollector, LiveSession, SessionBook
from coral.colony.collectors import Collectors
from coral.colony.enrolment import Enrolment
from coral.colony.pool import AgentPool
from coral.colony.registry import Registry
from coral.model.errors import CoralError, NotFound
from coral.model.session import ReasonCode, Status

_PARTING_S = 1.0

_log = structlog.get_logger(__name__)


class Expulsion:
    """Ends what an agent has: its certificates, its place in the registry, its collectors, its connection."""

    def __init__(
        self, *, enrolment: Enrolment, registry: Registry, book: SessionBook, collectors: Collectors, pool: AgentPool
    ) -> None:
        self._enrolment = enrolment
        self._registry = registry
        self._book = book
        self._collectors = collectors
        self._pool = pool

    async def expel(self, agent_id: str, *, by: str) -> tuple[int, int]:
        """Puts an agent out. Calls of it that run end within a second, by the guard.

        It is asked once to detach what the colony attached; it may not care, and detaches at the deadlines anyway.

        Args:
            agent_id: Which.
            by: Who wants that, for the sessions' reason.

        Returns:
            How many certificates were good until now, and how many collectors ran.

        Raises:
            NotFound: It has no certificate.
        """
        certificates = await self._enrolment.revoke(agent_id)
        self._registry.expel(agent_id)
        reason = f"Agent {agent_id!r} was revoked by {by}."
        ended = []
        for live in self._book:
            for collector in live.collectors.values():
                if collector.agent_id == agent_id and not collector.ended.is_set():
                    self._end(live, collector, reason)
                    ended.append(collector.collector_id)
        await self._part(agent_id, ended)
        await self._pool.drop(agent_id)
        return certificates, len(ended)

    def forget_strangers(self) -> None:
        """At the start: agents whose certificates have ended while the colony was away are not online."""
        for agent in self._registry.agents():
            if not self._enrolment.is_enrolled(agent.agent_id):
                self._registry.expel(agent.agent_id)

    def _end(self, live: LiveSession, collector: LiveCollector, reason: str) -> None:
        collector.unknown = collector.unknown_since(live.session.started_at_ns, to_ns=live.now_ns, cause=reason)
        self._book.end_collector(collector, Status.FAILED, ReasonCode.AGENT_GONE, reason)

    async def _part(self, agent_id: str, collector_ids: list[str]) -> None:
        try:
            agent = self._registry.agent(agent_id)
        except NotFound:  # it joined and never registered
            return
        stops = asyncio.gather(
            *(self._collectors.stop(agent, collector_id) for collector_id in collector_ids), return_exceptions=True
        )
        try:
            async with asyncio.timeout(_PARTING_S):
                answers = await stops
        except TimeoutError:
            _log.warning("a revoked agent does not answer", agent_id=agent_id, collectors=len(collector_ids))
            return
        for collector_id, answer in zip(collector_ids, answers, strict=True):
            if isinstance(answer, CoralError):
                _log.warning("a revoked agent did not detach", collector_id=collector_id, error=str(answer))
            elif isinstance(answer, BaseException):
                raise answer
