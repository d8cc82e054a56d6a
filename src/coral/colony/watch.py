"""The life of a running session, seen from the colony: a stream per collector until each has ended, then the session's end.

An agent holds its deadlines alone. The colony only listens: it resumes streams after the sequence that the database holds,
starts a successor when an agent comes back without the collector, takes in hosts on which the service appears meanwhile, and
gives up on an agent of which there is no word long after the deadline. A link that says nothing is dialled anew: it may be
dead without either end knowing, and the next one work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

import structlog

from coral.colony.book import LiveCollector, LiveSession, SessionBook
from coral.colony.collectors import Collectors
from coral.colony.deadline import boot_ns
from coral.colony.ingest import Ingest
from coral.colony.pool import AgentPool, Backoff
from coral.colony.progress import receive
from coral.colony.registry import Registry
from coral.colony.slots import Slots
from coral.model.errors import CoralError, NotFound, Unavailable
from coral.model.service import Agent
from coral.model.session import ReasonCode, Status
from coral.wire._generated.colony.v1 import debug_pb2

_log = structlog.get_logger(__name__)
GRACE_S = 5.0
_UTMOST_S = 600.0
"""How long after a deadline an agent may still send what it has: for so long it keeps it."""
_NO_PATIENCE_S = 0.05
_WORTHWHILE_S = 0.5
_MAX_MALFORMED = 5
_BATCHES_PER_S = 200
"""Of all streams: a batch costs a millisecond or more, however few events it has. Of many agents each gathers for longer."""


class Watch:
    """Follows the collectors of sessions."""

    def __init__(
        self,
        *,
        registry: Registry,
        pool: AgentPool,
        book: SessionBook,
        ingest: Ingest,
        collectors: Collectors,
        slots: Slots,
        silent_s: float,
        grace_s: float = GRACE_S,
    ) -> None:
        """Args: ``silent_s`` is how long a stream may say nothing; ``grace_s`` is how long after a deadline an agent may."""
        self._registry = registry
        self._pool = pool
        self._book = book
        self._ingest = ingest
        self._collectors = collectors
        self._slots = slots
        self._silent_s = silent_s
        self._grace_s = grace_s
        self._began_boot_ns = boot_ns()
        self._redialled_at: dict[str, float] = {}
        self._streams = 0
        registry.on_services(self._services_changed)

    def agent_came(self, agent_id: str, *, reborn: bool) -> None:
        """Makes the watches over an agent's collectors look anew: it has registered, perhaps (``reborn``) in a new life."""
        if reborn:
            self._pool.renew(agent_id)
        for live in self._book:
            if (collector := live.latest(agent_id)) is not None:
                collector.nudge.set()

    async def session(self, live: LiveSession) -> None:
        """Follows a session until it has ended and that is written."""
        async with asyncio.TaskGroup() as group:
            hosts = {group.create_task(self._agent(live, collector)) for collector in live.current()}
            while hosts:
                news = group.create_task(live.news.wait())
                done, _ = await asyncio.wait({news, *hosts}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                hosts -= done
                live.news.clear()
                for agent_id in live.newcomers - live.joining:
                    hosts.add(group.create_task(self._newcomer(live, agent_id)))
        backoff = Backoff()
        while not live.ended.is_set():
            try:
                await self._book.end(live)
            except Unavailable as error:
                _log.warning("a session's end waits for the database", session_id=live.session_id, error=str(error))
                await asyncio.sleep(backoff.pause_s())
        session = live.session
        _log.info(
            "session ended", session_id=live.session_id, status=session.status.value, reason_code=session.reason_code.value
        )

    def _services_changed(self, agent_id: str) -> None:
        """Has the sessions of services that an agent sees, and that do not run there yet, try it."""
        for live in self._book:
            if live.latest(agent_id) is not None or not self._registry.sees(agent_id, live.session.service_name):
                continue
            if not debug_pb2.AttachUprobeRequest.FromString(live.request).agent_id:  # else it was narrowed to another
                live.newcomers.add(agent_id)
                live.news.set()

    async def _newcomer(self, live: LiveSession, agent_id: str) -> None:
        """Takes a host into a session, if it can be attached there, and follows it. One that cannot is tried again when the
        processes of services on it change.
        """
        live.newcomers.discard(agent_id)
        known = any(collector.agent_id == agent_id for collector in live.current())
        if known or live.remaining_s() <= _WORTHWHILE_S or live.ending is not None:
            return
        if not self._slots.allows(live, agent_id):
            _log.info("host not taken in", agent_id=agent_id, session_id=live.session_id, error="it has no free slot")
            return
        live.joining.add(agent_id)
        try:
            agent = self._registry.online(agent_id)
            with self._collectors.starting([agent_id]):
                collector, _ = await self._collectors.start(live, agent)
                self._book.add_collector(live, collector)
        except CoralError as error:
            _log.info("host not taken in", agent_id=agent_id, session_id=live.session_id, error=str(error))
            return
        finally:
            live.joining.discard(agent_id)
            if agent_id in live.newcomers:
                live.news.set()
        _log.info("host taken in", agent_id=agent_id, session_id=live.session_id, collector_id=collector.collector_id)
        self._book.report(live, collector, collector.instances, active=collector.status is Status.ACTIVE)
        live.feed.publish(None)
        await self._stop_if_ending(live, agent, collector)
        await self._agent(live, collector)

    async def _stop_if_ending(self, live: LiveSession, agent: Agent, collector: LiveCollector) -> None:
        """Ends the collector of a session whose end was asked for while it was being started."""
        if live.ending is None:
            return
        try:
            await self._collectors.stop(agent, collector.collector_id)
        except CoralError as error:  # it detaches by itself at the deadline
            _log.warning("detach not confirmed", collector_id=collector.collector_id, error=str(error))

    async def _agent(self, live: LiveSession, collector: LiveCollector) -> None:
        """Follows a collector and its successors on the same agent."""
        current: LiveCollector | None = collector
        while current is not None:
            current = await self._successor(live, current) if await self._follow(live, current) else None

    async def _follow(self, live: LiveSession, collector: LiveCollector) -> bool:
        """Streams a collector until it has ended; returns True when its agent does not know it (any more)."""
        backoff, malformed, trouble = Backoff(), 0, ""
        while not collector.ended.is_set():
            collector.nudge.clear()
            if self._give_up(live, collector):
                return False
            agent = self._known(collector)
            if agent is not None and agent.boot_id != collector.boot_id:
                return True
            try:
                if agent is None:
                    raise Unavailable(f"Agent {collector.agent_id!r} has not registered.")
                self._streams += 1
                try:
                    await self._until_nudged(self._stream(live, collector, agent, backoff), collector)
                finally:
                    self._streams -= 1
            except NotFound:
                return True
            except ValueError as error:
                malformed += 1
                _log.error(
                    "malformed batch", agent_id=collector.agent_id, collector_id=collector.collector_id, error=str(error)
                )
                if malformed >= _MAX_MALFORMED:
                    self._book.end_collector(
                        collector, Status.FAILED, ReasonCode.NONE, f"Its agent sends what cannot be read: {error}."
                    )
            except (CoralError, TimeoutError) as error:
                if isinstance(error, TimeoutError):
                    self._redial(collector.agent_id)
                # Once for each thing that is in the way: attempts go on for as long as an agent is away.
                log = _log.debug if str(error) == trouble else _log.info
                log("stream broken", agent_id=collector.agent_id, collector_id=collector.collector_id, error=str(error))
                trouble = str(error)
            if not collector.ended.is_set():
                await self._pause(collector, min(backoff.pause_s(), self._patience_s(live, collector)))
        return False

    async def _stream(self, live: LiveSession, collector: LiveCollector, agent: Agent, backoff: Backoff) -> None:
        """Takes in batches; returns after the final one was committed, or when the agent ends the stream."""
        stream = self._pool.client(agent).stream(
            collector.collector_id,
            after_sequence=collector.progress.last_sequence,
            gather_ms=round(max(self._streams, len(live.current())) / _BATCHES_PER_S * 1000),
        )
        async with aclosing(stream) as batches, asyncio.timeout(max(self._grace_s, live.remaining_s() + _UTMOST_S)):
            while True:
                async with asyncio.timeout(min(self._silent_s, self._patience_s(live, collector))):
                    message = await anext(batches, None)
                if message is None:
                    return
                collector.heard_boot_ns, received_ns = boot_ns(), live.now_ns
                batch = receive(message, collector_id=collector.collector_id, received_ns=received_ns)
                backoff.reset()
                if batch.ledger is not None:
                    collector.received_ns = received_ns
                await self._ingest.put(live, collector, batch)
                if message.unauthorised and message.instances:  # they changed, so that it may be about another function
                    await self._collectors.authorise_more(live, agent)
                if batch.final:
                    await collector.ended.wait()
                    return

    async def _until_nudged(self, work: Coroutine[Any, Any, None], collector: LiveCollector) -> None:
        """Runs ``work``, but not beyond a nudge."""
        working = asyncio.create_task(work)
        nudged = asyncio.create_task(collector.nudge.wait())
        try:
            await asyncio.wait({working, nudged}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            done = working.done()
            for task in (working, nudged):
                task.cancel()
            await asyncio.wait({working, nudged})
        if done:
            working.result()

    def _patience_s(self, live: LiveSession, collector: LiveCollector) -> float:
        """For how long a word of an agent is waited for still, beyond the deadline; never quite 0."""
        # A colony that was down at the deadline gives its agents the same time, from when it came back.
        if collector.unstored:  # it has spoken; the database is what is waited for
            return self._grace_s
        last_word_ns = max(live.deadline.at_boot_ns, self._began_boot_ns, collector.heard_boot_ns)
        return max(_NO_PATIENCE_S, self._grace_s - (boot_ns() - last_word_ns) / 1e9)

    def _give_up(self, live: LiveSession, collector: LiveCollector) -> bool:
        """Ends a collector of which there was no word long after its deadline; returns whether that is so."""
        expires_at_ns = live.session.expires_at_ns
        overdue_s = (boot_ns() - max(live.deadline.at_boot_ns, self._began_boot_ns)) / 1e9
        if collector.unstored or (self._patience_s(live, collector) > _NO_PATIENCE_S and overdue_s < _UTMOST_S):
            return False
        reason = f"Agent {collector.agent_id!r} was not heard of after the deadline; it detaches by itself."
        collector.unknown = collector.unknown_since(live.session.started_at_ns, to_ns=expires_at_ns, cause=reason)
        self._book.end_collector(collector, Status.LOST, ReasonCode.AGENT_GONE, reason)
        return True

    async def _successor(self, live: LiveSession, old: LiveCollector) -> LiveCollector | None:
        """Starts the session anew on an agent that came back without its collector; None when there is no time left."""
        backoff = Backoff(first_s=0.2)
        cause = f"Agent {old.agent_id!r} was restarted; what it had counted since its last report is lost."
        answered = ""
        while live.remaining_s() > _WORTHWHILE_S and live.ending is None and not old.ended.is_set():
            old.nudge.clear()
            agent = self._known(old)
            try:
                if agent is None:
                    raise Unavailable(f"Agent {old.agent_id!r} has not registered.")
                with self._collectors.starting([agent.agent_id]):
                    new, _ = await self._collectors.start(live, agent)
                    if new.collector_id == old.collector_id:
                        old.unknown = ()
                        old.boot_id = agent.boot_id
                        return old
                    self._book.add_collector(live, new)
            except CoralError as error:
                _log.warning("no successor yet", agent_id=old.agent_id, session_id=live.session_id, error=str(error))
                answered = "" if isinstance(error, Unavailable) else str(error)
                if not old.unknown:
                    old.unknown = old.unknown_since(live.session.started_at_ns, to_ns=0, cause=cause)
                    self._book.save_collector(old)
                await self._pause(old, backoff.pause_s())
                continue
            old.unknown = old.unknown_since(live.session.started_at_ns, to_ns=live.now_ns, cause=cause)
            self._book.end_collector(old, Status.FAILED, ReasonCode.AGENT_GONE, cause)
            self._book.report(live, new, new.instances, active=new.status is Status.ACTIVE)
            live.feed.publish(None)
            return new
        self._close(live, old, cause, answered)
        return None

    def _close(self, live: LiveSession, old: LiveCollector, cause: str, answered: str) -> None:
        """Ends a collector that got no successor."""
        end_ns = min(live.now_ns, live.session.expires_at_ns)
        old.unknown = old.unknown_since(live.session.started_at_ns, to_ns=end_ns, cause=cause)
        if live.ending is not None:
            self._book.end_collector(old, live.ending.status, live.ending.reason_code, cause)
        elif answered:
            self._book.end_collector(old, Status.EXPIRED, ReasonCode.DEADLINE, f"{cause} Until the deadline: {answered}")
        else:
            self._book.end_collector(old, Status.LOST, ReasonCode.AGENT_GONE, cause)

    def _redial(self, agent_id: str) -> None:
        """Has the next call to an agent make a connection of its own, once for all that wait for that agent."""
        now = time.monotonic()
        if now - self._redialled_at.get(agent_id, -self._silent_s) >= self._silent_s:
            self._redialled_at[agent_id] = now
            self._pool.renew(agent_id)

    def _known(self, collector: LiveCollector) -> Agent | None:
        """The agent of a collector; None if the registry lost it, until it registers again."""
        try:
            return self._registry.agent(collector.agent_id)
        except NotFound:
            return None

    async def _pause(self, collector: LiveCollector, pause_s: float) -> None:
        """Waits before the next attempt, at most until a nudge."""
        try:
            async with asyncio.timeout(pause_s):
                await collector.nudge.wait()
        except TimeoutError:
            return
