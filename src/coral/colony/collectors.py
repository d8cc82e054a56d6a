"""Starting and stopping collectors on agents, and finding those that should not run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

import structlog

from coral.colony.book import LiveCollector, LiveSession, SessionBook
from coral.colony.function_policies import FunctionPolicies
from coral.colony.pool import AgentPool
from coral.colony.progress import Progress
from coral.colony.slots import Slots
from coral.model.errors import CoralError, FailedPrecondition, NotFound, PermissionDenied
from coral.model.probe import MIN_DURATION_NS
from coral.model.service import Agent
from coral.model.session import InstanceStatus, Status
from coral.wire._generated.colony.v1 import debug_pb2
from coral.wire._generated.mesh.v1 import ebpf_pb2
from coral.wire.convert import duration, instance_from

_log = structlog.get_logger(__name__)
START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0
_TRIES = 2
"""At a start whose processes change while policies are asked about them."""


class Collectors:
    """What the colony asks of its agents."""

    def __init__(self, pool: AgentPool, book: SessionBook, slots: Slots, functions: FunctionPolicies) -> None:
        self._pool = pool
        self._functions = functions
        self._book = book
        self._slots = slots
        self._starting: dict[str, set[asyncio.Event]] = {}
        self._reconciling: set[str] = set()

    async def start(self, live: LiveSession, agent: Agent) -> tuple[LiveCollector, str]:
        """Starts a collector of a session on an agent, for the time that the session still has.

        Not entered into the session yet: ``adopt`` does that. Starting again what runs already gives the same collector.

        Returns:
            The collector, and a warning of the agent; empty if there is none.

        Raises:
            CoralError: What the agent says, or Unavailable or DeadlineExceeded.
        """
        for _ in range(_TRIES):
            try:
                return await self._start(live, agent)
            except PermissionDenied as error:
                # A process that started a moment ago has another function of that name: the policies are asked about it too.
                if "unauthorised" not in error.details or not await self._functions.authorise_more(live, [agent]):
                    raise
        return await self._start(live, agent)

    async def authorise_more(self, live: LiveSession, agent: Agent) -> None:
        """Lets a collector that runs take in processes that it left alone, since the policies were not asked about what the
        session's function is in them; if the policies let it. What goes wrong is logged: they stay as they are then.
        """
        try:
            if await self._functions.authorise_more(live, [agent]):
                await self._start(live, agent)
        except CoralError as error:
            _log.warning("processes left alone", session_id=live.session_id, agent_id=agent.agent_id, error=str(error))

    async def _start(self, live: LiveSession, agent: Agent) -> tuple[LiveCollector, str]:
        asked = debug_pb2.AttachUprobeRequest.FromString(live.request)
        # An agent takes 1 s at least, whoever asks; the last second of a session is rounded up to it.
        remaining_ns = max(round(live.remaining_s() * 1e9), MIN_DURATION_NS)
        request = ebpf_pb2.StartUprobeCollectorRequest(
            agent_id=agent.agent_id,
            service_name=asked.service_name,
            function_name=asked.function_name,
            duration=duration(remaining_ns),
            config=asked.config,
            sdk_addr=asked.sdk_addr,
            session_id=live.session_id,
            filter=asked.filter,
            actor=live.session.requested_by,
            authorised=asked.authorised if asked.HasField("authorised") else None,
        )
        response = await self._pool.call(
            agent,
            lambda client, left_s: client.start(request, timeout_s=left_s),
            timeout_s=START_TIMEOUT_S,
            retry=True,
        )
        if not response.supported or not response.collector_id:
            raise FailedPrecondition(
                f"Agent {agent.agent_id!r} did not attach: {response.error or 'it gives no reason'}.",
                hint="Look at the agent's log.",
            )
        instances = tuple(instance_from(instance) for instance in response.instances)
        collector = LiveCollector(
            agent_id=agent.agent_id,
            boot_id=agent.boot_id,
            progress=Progress(collector_id=response.collector_id, session_id=live.session_id),
            instances=instances,
        )
        if any(instance.status is InstanceStatus.ATTACHED for instance in instances):
            collector.status = Status.ACTIVE
        return collector, response.error

    @contextmanager
    def starting(self, agent_ids: Iterable[str]) -> Iterator[None]:
        """A block in which collectors that agents report are not taken for leftovers: an answer is on its way."""
        done, agents = asyncio.Event(), tuple(agent_ids)
        for agent_id in agents:
            self._starting.setdefault(agent_id, set()).add(done)
        try:
            yield
        finally:
            done.set()
            for agent_id in agents:
                under_way = self._starting[agent_id]
                under_way.discard(done)
                if not under_way:
                    del self._starting[agent_id]

    async def stop(self, agent: Agent, collector_id: str) -> None:
        """Stops a collector; one that the agent does not know has stopped already.

        Raises:
            CoralError: The agent could not be asked, or could not detach.
        """
        try:
            await self._pool.call(
                agent,
                lambda client, left_s: client.stop(collector_id, timeout_s=left_s),
                timeout_s=STOP_TIMEOUT_S,
                retry=True,
            )
        except NotFound:
            _log.info("collector was gone", agent_id=agent.agent_id, collector_id=collector_id)

    async def reconcile(self, agent: Agent, reported: Sequence[str], *, starting: Collection[str]) -> None:
        """Stops the collectors that an agent reports and no running session knows: of sessions that ended while it could not
        be reached, and of starts whose answer got lost. Then whatever is not known to have ended on it is known to have.

        Args:
            agent: Which.
            reported: The ids of the collectors that run on it.
            starting: The sessions for which it was attaching then.
        """
        if agent.agent_id in self._reconciling:
            return  # the next heartbeat says the same
        arrived = time.monotonic()
        self._reconciling.add(agent.agent_id)
        try:
            known = all(self._book.collector(collector_id) for collector_id in reported)
            if known or await self._stop_unknown(agent, reported):
                self._slots.reported(agent.agent_id, arrived=arrived, starting=starting)
        finally:
            self._reconciling.discard(agent.agent_id)

    async def _stop_unknown(self, agent: Agent, reported: Sequence[str]) -> bool:
        """Stops what no session knows; returns whether nothing of it runs any more."""
        under_way = list(self._starting.get(agent.agent_id, ()))
        for done in under_way:  # one of the answers may be about one of these; each has its deadline
            await done.wait()
        unknown = [collector_id for collector_id in reported if self._book.collector(collector_id) is None]
        stopped = True
        stops = [self.stop(agent, collector_id) for collector_id in unknown]
        for collector_id, outcome in zip(unknown, await asyncio.gather(*stops, return_exceptions=True), strict=True):
            if isinstance(outcome, CoralError):
                _log.warning("leftover not stopped", collector_id=collector_id, error=str(outcome))  # heartbeats repeat it
                stopped = False
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                _log.info("leftover stopped", agent_id=agent.agent_id, collector_id=collector_id)
        return stopped
