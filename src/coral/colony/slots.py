"""Who may begin a session now: the slots of a user, a service, an agent and the colony, and the queue of those who wait.

Nothing is counted up or down: what is taken follows from the sessions that run (``SessionBook``), from grants whose session
is about to be among them, and from collectors that may still run on an agent although their session is over. So a restart
of the colony, which finds its sessions again, neither forgets a slot nor counts one twice.

A free slot goes to whoever waits and was served the longest ago, and within one user to whoever came first. So of N users who
want the same slots each is served at least every Nth time, whatever the others ask for.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from coral.colony.book import LiveSession, SessionBook
from coral.model.errors import ResourceExhausted
from coral.model.session import Session

_LOOK_S = 0.25
_MAX_WAITING_OF_USER = 32
_MAX_WAITING = 1024
_MAX_SERVED = 4096
"""Users of whom it is known when they were served last; of others it was longer ago."""
_NAMED = 8
"""How many holders a refusal names."""
_UNDER_WAY_S = 0.5
"""A report that came in less than this after a doubt arose may be older than it."""
_REQUEST_UNDER_WAY_NS = 10_000_000_000
"""What an agent was asked for may reach it this much later, and then lasts as much longer than the session."""

Key = tuple[str, str]
"""A limit: its kind (user, service, agent or colony), and whose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotLimits:
    """How many sessions may run at once, and for how long an attach waits for one of them to end.

    Attributes:
        user: Of one user.
        service: Of one service.
        agent: On one agent.
        colony: In all.
        wait_s: How long a request waits; 0 refuses at once.
    """

    user: int
    service: int
    agent: int
    colony: int
    wait_s: float

    def of(self, key: Key) -> int:
        """How many slots there are."""
        return int(getattr(self, key[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a session that is to begin takes.

    Attributes:
        user: Who asks: the name of the principal.
        service_name: Of which service.
        function_name: Of which function.
        agent_ids: On which agents.
        named: Whether the user is known by a credential. Else the name is what the caller says, and whoever gets in may do
            everything: only what protects the hosts and the colony counts.
    """

    user: str
    service_name: str
    function_name: str
    agent_ids: frozenset[str]
    named: bool = True

    def keys(self) -> Iterator[Key]:
        """The limits that it counts towards, the widest first."""
        yield "colony", ""
        for agent_id in sorted(self.agent_ids):
            yield "agent", agent_id
        if self.named:
            yield "service", self.service_name
            yield "user", self.user


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """What takes slots now.

    Attributes:
        claim: Which ones.
        session_id: Empty while it has none yet.
        expires_at_ns: When it ends at the latest; 0 when that is not known yet.
        over: Whether no session follows it: what it had attached may still be there, or not.
    """

    claim: Claim
    session_id: str = ""
    expires_at_ns: int = 0
    over: bool = False

    def __str__(self) -> str:
        claim = self.claim
        what = f"{self.session_id or 'one that is being attached'} by {claim.user} ({claim.function_name}"
        if self.expires_at_ns:
            what += f", ends within {max(0.0, (self.expires_at_ns - time.time_ns()) / 1e9):.0f} s"
        if self.over:
            what += f"; over, but not confirmed by {', '.join(sorted(claim.agent_ids))}"
        return what + ")"


class Grant:
    """Slots that are held for a session until it is in the book; leaving the block, or ``release``, gives them back."""

    def __init__(self, slots: Slots, claim: Claim) -> None:
        self._slots = slots
        self.claim = claim

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    def release(self) -> None:
        """Gives the slots back; a second time changes nothing."""
        self._slots.release(self)


@dataclass(slots=True, kw_only=True)
class _Waiting:
    claim: Claim
    granted: asyncio.Future[Grant]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Doubt:
    """A collector that may run although no session follows it: its agent did not say, or was not understood."""

    holder: Holder
    since: float  # of the monotonic clock


class _Running:
    """How many slots the sessions that run take, kept as they come and go: to look at each of them for every attach is 9 ms
    of the event loop where a thousand run. On which agents a session may be is noted; whether it is there is asked of it.
    """

    def __init__(self) -> None:
        self._sessions: dict[str, tuple[LiveSession, set[str]]] = {}
        self._by_name: Counter[Key] = Counter()
        self._on: dict[str, dict[str, LiveSession]] = {}

    def add(self, live: LiveSession) -> None:
        """Counts a session."""
        self._sessions[live.session_id] = live, set()
        self._by_name.update(_names_of(live))
        for agent_id in live.agent_ids().union(one.agent_id for one in live.collectors.values()):
            self.place(live, agent_id)

    def place(self, live: LiveSession, agent_id: str) -> None:
        """Notes that a session may be on an agent from now on."""
        if live.session_id in self._sessions:
            self._sessions[live.session_id][1].add(agent_id)
            self._on.setdefault(agent_id, {})[live.session_id] = live

    def remove(self, live: LiveSession) -> None:
        """Counts a session no more; a second time changes nothing."""
        if live.session_id not in self._sessions:
            return
        _, places = self._sessions.pop(live.session_id)
        self._by_name.subtract(_names_of(live))
        for key in _names_of(live):
            if not self._by_name[key]:
                del self._by_name[key]
        for agent_id in places:
            del self._on[agent_id][live.session_id]
            if not self._on[agent_id]:
                del self._on[agent_id]

    def count(self, key: Key) -> int:
        """How many slots of a limit they take."""
        kind, whose = key
        if kind == "agent":
            return sum(live.holds(whose) for live in self._on.get(whose, {}).values())
        return len(self._sessions) if kind == "colony" else self._by_name[key]


class _Used:
    """How many slots of each limit are taken: what runs, and what is counted beside it."""

    def __init__(self, running: _Running, beside: Counter[Key]) -> None:
        self._running = running
        self._beside = beside
        self._counts: dict[Key, int] = {}

    def __getitem__(self, key: Key) -> int:
        if key not in self._counts:
            self._counts[key] = self._running.count(key) + self._beside[key]
        return self._counts[key]

    def update(self, keys: Iterable[Key]) -> None:
        """Counts one more of each."""
        for key in keys:
            self._counts[key] = self[key] + 1


class Slots:
    """Hands out slots. Belongs to the event loop's thread.

    Args:
        book: The sessions that run.
        limits: How many there may be.
    """

    def __init__(self, book: SessionBook, limits: SlotLimits) -> None:
        self._book = book
        self._limits = limits
        self._grants: dict[Grant, None] = {}
        self._doubts: dict[tuple[str, str], _Doubt] = {}
        self._queues: dict[str, deque[_Waiting]] = {}
        self._served: OrderedDict[str, int] = OrderedDict()
        self._turn = 0
        self._running = _Running()
        for live in book:
            self._came(live)
        book.on_added(self._came)
        book.on_left(self._left)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._queues.values()))

    async def grant(self, claim: Claim) -> Grant:
        """Waits for free slots.

        Returns:
            The slots, to be released once the session is in the book, or will not be.

        Raises:
            ResourceExhausted: None came free in time, or too many wait already; says who holds them.
        """
        queue = self._queues.setdefault(claim.user, deque())
        if len(queue) >= _MAX_WAITING_OF_USER or self.waiting >= _MAX_WAITING:
            raise self._refusal(claim, waited=False)
        waiting = _Waiting(claim=claim, granted=asyncio.get_running_loop().create_future())
        queue.append(waiting)
        give_up_at = time.monotonic() + self._limits.wait_s
        try:
            self._admit()
            while not waiting.granted.done() and (left_s := give_up_at - time.monotonic()) > 0:
                # In short steps, since doubts end by the clock too, and nobody tells.
                await asyncio.wait({waiting.granted}, timeout=min(left_s, _LOOK_S))
                self._admit()
        except asyncio.CancelledError:
            if waiting.granted.done():
                waiting.granted.result().release()
            raise
        finally:
            self._leave(waiting)
        if waiting.granted.done():
            return waiting.granted.result()
        raise self._refusal(claim, waited=self._limits.wait_s > 0)

    def release(self, grant: Grant) -> None:
        """Takes a grant back."""
        if grant in self._grants:
            del self._grants[grant]
            self._admit()

    def allows(self, live: LiveSession, agent_id: str) -> bool:
        """Whether a session that runs may take in a further agent."""
        allowed = live.holds(agent_id) or self._used()["agent", agent_id] < self._limits.agent
        if allowed:
            self._running.place(live, agent_id)
        return allowed

    def doubt(self, session: Session, agent_ids: Iterable[str]) -> None:
        """Notes that agents may have attached a session although nobody knows: their answers got lost.

        The slots stay taken until each of them has reported what it runs, or its deadline has passed, which it holds alone.
        """
        for agent_id in agent_ids:
            claim = Claim(
                user=session.requested_by,
                service_name=session.service_name,
                function_name=session.function_name,
                agent_ids=frozenset({agent_id}),
            )
            holder = Holder(
                claim=claim,
                session_id=session.session_id,
                expires_at_ns=session.expires_at_ns + _REQUEST_UNDER_WAY_NS,
                over=True,
            )
            self._doubts[session.session_id, agent_id] = _Doubt(holder=holder, since=time.monotonic())

    def doubts(self, agent_id: str) -> bool:
        """Whether a report of an agent would change anything."""
        return any(doubted == agent_id for _, doubted in self._doubts)

    def reported(self, agent_id: str, *, arrived: float, starting: Collection[str]) -> None:
        """Notes that an agent runs nothing that no session knows.

        Args:
            agent_id: Which.
            arrived: When its report did, of the monotonic clock.
            starting: The sessions for which it was attaching then.
        """
        for key, doubt in list(self._doubts.items()):
            session_id, doubted = key
            if doubted == agent_id and session_id not in starting and doubt.since + _UNDER_WAY_S < arrived:
                del self._doubts[key]
        self._admit()

    def holders(self, key: Key) -> list[Holder]:
        """Who takes the slots of a limit, the one that ends first at the front."""
        merged: dict[str, Holder] = {}
        for number, holder in enumerate(self._all()):
            if key in set(holder.claim.keys()):
                name = holder.session_id or str(number)
                known = merged.get(name, holder)
                both = replace(known.claim, agent_ids=known.claim.agent_ids | holder.claim.agent_ids)
                merged[name] = replace(known, claim=both)  # one that is in doubt on several agents is one
        return sorted(merged.values(), key=lambda holder: holder.expires_at_ns or time.time_ns())

    def _all(self) -> Iterator[Holder]:
        for live in self._book:
            yield Holder(claim=_claim_of(live), session_id=live.session_id, expires_at_ns=live.session.expires_at_ns)
        for grant in self._grants:
            yield Holder(claim=grant.claim)
        yield from self._doubted()

    def _doubted(self) -> Iterator[Holder]:
        """What is in doubt still."""
        now_ns = time.time_ns()
        for key, doubt in list(self._doubts.items()):
            if doubt.holder.expires_at_ns <= now_ns:
                del self._doubts[key]
            else:
                yield doubt.holder

    def _used(self) -> _Used:
        """How many slots of each limit are taken: as ``_all`` says, of those limits that are asked for."""
        beside: Counter[Key] = Counter()
        for grant in self._grants:
            beside.update(grant.claim.keys())
        # A session counts once for each limit, however many of its agents are in doubt, and whether or not it runs.
        counted: dict[str, set[Key]] = {}
        for holder in self._doubted():
            if holder.session_id not in counted:
                live = self._book.get(holder.session_id)
                counted[holder.session_id] = set() if live is None else set(_claim_of(live).keys())
            fresh = set(holder.claim.keys()) - counted[holder.session_id]
            counted[holder.session_id] |= fresh
            beside.update(fresh)
        return _Used(self._running, beside)

    def _came(self, live: LiveSession) -> None:
        """A session is to run."""
        self._running.add(live)

    def _left(self, live: LiveSession) -> None:
        """A session is over: what its agents did not confirm is doubted."""
        self._running.remove(live)
        self.doubt(live.session, live.unconfirmed())
        self._admit()

    def _leave(self, waiting: _Waiting) -> None:
        """Takes somebody out of the queue, who no longer stands before others then."""
        user = waiting.claim.user
        queue = self._queues.get(user, deque())
        if waiting in queue:
            queue.remove(waiting)
            self._admit()
        if not queue:
            self._queues.pop(user, None)

    def _admit(self) -> None:
        """Gives what is free to those whose turn it is."""
        while self.waiting and self._pass():
            pass

    def _pass(self) -> bool:
        """One turn of every user who waits; returns whether anybody got something."""
        used = self._used()
        served = False
        for user in sorted(self._queues, key=lambda user: self._served.get(user, 0)):
            for position, waiting in enumerate(self._queues[user]):
                keys = list(waiting.claim.keys())
                full = {key for key in keys if used[key] >= self._limits.of(key)}
                if not full:
                    self._give(waiting)
                    used.update(keys)
                    served = True
                    break
                if position == 0 and ("user", user) not in full:
                    # What is free of what it needs is kept for it: else a session on many hosts would never find all of
                    # them free at once. Who is at a limit of their own keeps nothing from others.
                    used.update(keys)
        return served

    def _give(self, waiting: _Waiting) -> None:
        user = waiting.claim.user
        grant = Grant(self, waiting.claim)
        self._grants[grant] = None
        self._turn += 1
        self._served[user] = self._turn
        self._served.move_to_end(user)
        if len(self._served) > _MAX_SERVED:
            self._served.popitem(last=False)
        self._queues[user].remove(waiting)
        waiting.granted.set_result(grant)

    def _refusal(self, claim: Claim, *, waited: bool) -> ResourceExhausted:
        used = self._used()
        full = [key for key in reversed(list(claim.keys())) if used[key] >= self._limits.of(key)]
        if not full:
            return ResourceExhausted(
                "Others wait for the same slots, and were served longer ago.",
                hint="Try again in a few seconds.",
                details={"limit": "queue"},
            )
        key = full[0]
        holders = self.holders(key)
        named = "; ".join(str(holder) for holder in holders[:_NAMED])
        more = f"; and {len(holders) - _NAMED} more" if len(holders) > _NAMED else ""
        kind, whose = key
        subject = "This colony" if kind == "colony" else f"{kind.capitalize()} {whose!r}"
        after = f" None of them ended within {self._limits.wait_s:g} s." if waited else ""
        count = f"{used[key]} session{'s' if used[key] > 1 else ''}"
        return ResourceExhausted(
            f"{subject} has {count}, the most that may run at once: {named}{more}.{after}",
            hint="Try again when one has ended, or stop one with `coral debug session stop ID`.",
            details={
                "limit": f"sessions per {kind}",
                "allowed": str(self._limits.of(key)),
                "held_by": ", ".join(holder.session_id for holder in holders[:_NAMED] if holder.session_id),
            },
        )


def _claim_of(live: LiveSession) -> Claim:
    """What a session that runs takes."""
    return Claim(
        user=live.session.requested_by,
        service_name=live.session.service_name,
        function_name=live.session.function_name,
        agent_ids=frozenset(live.agent_ids()),
    )


def _names_of(live: LiveSession) -> tuple[Key, Key]:
    return ("service", live.session.service_name), ("user", live.session.requested_by)
