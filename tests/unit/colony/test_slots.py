"""Slots: how many sessions may run at once, who waits for one, and who is told who holds them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest

from coral.colony.book import LiveCollector, LiveSession, SessionBook
from coral.colony.feed import Feed
from coral.colony.progress import Progress
from coral.colony.slots import Claim, Grant, SlotLimits, Slots
from coral.colony.store.database import Database
from coral.colony.store.schema import CONTROL
from coral.model.errors import ResourceExhausted
from coral.model.session import Session, Status

LIMITS = {"user": 100, "service": 100, "agent": 100, "colony": 100, "wait_s": 0.0}


class Bench:
    """A book, its slots, and sessions made by hand."""

    def __init__(self, **limits: float) -> None:
        self.book = SessionBook(Database(None, CONTROL))
        self.slots = Slots(self.book, SlotLimits(**{**LIMITS, **limits}))  # type: ignore[arg-type]
        self._made = 0

    async def begin(self, user: str = "ann", service: str = "checkout", *agents: str, named: bool = True) -> LiveSession:
        """Takes slots and begins a session, as an attach does."""
        with await self.slots.grant(claim(user, service, *agents, named=named)) as grant:
            return self.add(grant.claim)

    def add(self, wanted: Claim) -> LiveSession:
        """Puts a session into the book, as a restart does."""
        self._made += 1
        now_ns = time.time_ns()
        live = LiveSession(
            session=Session(
                session_id=f"S{self._made}",
                service_name=wanted.service_name,
                function_name=wanted.function_name,
                agent_id="",
                started_at_ns=now_ns,
                expires_at_ns=now_ns + 42_500_000_000,
                status=Status.ACTIVE,
                requested_by=wanted.user,
            ),
            request=b"",
            feed=Feed(),
        )
        for agent_id in wanted.agent_ids:
            progress = Progress(collector_id=f"{live.session_id}-{agent_id}", session_id=live.session_id)
            live.collectors[progress.collector_id] = LiveCollector(agent_id=agent_id, boot_id="b", progress=progress)
        self.book.add(live)
        return live

    def end(self, live: LiveSession, *, confirmed: bool = True) -> None:
        """Ends a session; of one that is not confirmed no agent has said that it has detached."""
        for collector in live.collectors.values():
            if confirmed:
                collector.progress = Progress(
                    collector_id=collector.collector_id, session_id=live.session_id, status=Status.DETACHED
                )
            collector.ended.set()
        self.book.discard(live)


def claim(user: str = "ann", service: str = "checkout", *agents: str, named: bool = True) -> Claim:
    """What an attach takes."""
    return Claim(
        user=user, service_name=service, function_name="main.Pay", agent_ids=frozenset(agents or ("a",)), named=named
    )


def run(work: Coroutine[Any, Any, None]) -> None:
    """Runs a test, and not for ever."""

    async def bounded() -> None:
        async with asyncio.timeout(10):
            await work

    asyncio.run(bounded())


@pytest.mark.parametrize(
    ("limit", "subject", "other"),
    [
        ("user", "User 'ann'", claim("ben")),
        ("service", "Service 'checkout'", claim("ann", "pricing")),
        ("agent", "Agent 'a'", claim("ann", "checkout", "b")),
        ("colony", "This colony", None),
    ],
)
def test_a_limit_and_who_holds_it(limit: str, subject: str, other: Claim | None) -> None:
    """At a limit an attach is refused with who holds the slots; what does not count towards it goes on; an end makes room."""

    async def body() -> None:
        bench = Bench(**{limit: 2})
        first, _ = await bench.begin(), await bench.begin()
        with pytest.raises(ResourceExhausted) as refused:
            await bench.begin()
        assert refused.value.message == (
            f"{subject} has 2 sessions, the most that may run at once: S1 by ann (main.Pay, ends within 42 s); "
            "S2 by ann (main.Pay, ends within 42 s)."
        )
        assert refused.value.details == {"limit": f"sessions per {limit}", "allowed": "2", "held_by": "S1, S2"}
        assert "coral debug session stop" in refused.value.hint
        if other is not None:
            (await bench.slots.grant(other)).release()
        bench.end(first)
        await bench.begin()

    run(body())


def test_whoever_has_no_credential_is_held_by_what_protects_hosts() -> None:
    """Names that nobody proved have no limits of their own; agents and the colony still have theirs."""

    async def body() -> None:
        bench = Bench(user=1, service=1, agent=3)
        for _ in range(3):
            await bench.begin(named=False)
        with pytest.raises(ResourceExhausted, match="Agent 'a' has 3 sessions"):
            await bench.begin(named=False)

    run(body())


def test_a_grant_counts_until_its_session_does() -> None:
    """Between the grant and the session in the book a slot is taken once: never not at all, never twice."""

    async def body() -> None:
        bench = Bench(service=2)
        grant = await bench.slots.grant(claim())
        assert len(bench.slots.holders(("service", "checkout"))) == 1
        bench.add(grant.claim)
        grant.release()
        grant.release()
        assert len(bench.slots.holders(("service", "checkout"))) == 1
        with await bench.slots.grant(claim()), pytest.raises(ResourceExhausted):
            await bench.slots.grant(claim())
        (await bench.slots.grant(claim())).release()

    run(body())


def test_a_free_slot_goes_to_whoever_was_served_the_longest_ago() -> None:
    """A user who asks without pause gets no more turns than one who asks once, and each user's own requests stay in order."""

    async def body() -> None:
        bench = Bench(service=1, wait_s=5)
        held = await bench.begin("greedy")
        served: list[str] = []

        async def attach(user: str, number: int) -> None:
            live = await bench.begin(user)
            served.append(f"{user}{number}")
            await asyncio.sleep(0)
            bench.end(live)

        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(attach("greedy", number))
            for user in ("ben", "cara"):
                for number in range(2):
                    group.create_task(attach(user, number))
            await asyncio.sleep(0.01)
            bench.end(held)
        assert served == ["ben0", "cara0", "greedy0", "ben1", "cara1", "greedy1", "greedy2", "greedy3"]

    run(body())


def test_a_session_on_many_hosts_is_not_starved_by_those_on_one() -> None:
    """What is free of what it needs is kept for it; who is at a limit of their own keeps nothing from others."""

    async def body() -> None:
        bench = Bench(agent=1, user=2, wait_s=5)
        on_a, on_b = await bench.begin("u1", "s", "a"), await bench.begin("u2", "s", "b")
        wide = asyncio.create_task(bench.begin("wide", "s", "a", "b"))
        await asyncio.sleep(0.01)
        narrow = asyncio.create_task(bench.begin("narrow", "s", "a"))
        await asyncio.sleep(0.01)
        bench.end(on_a)
        await asyncio.sleep(0.01)
        assert not narrow.done()
        bench.end(on_b)
        live = await wide
        assert not narrow.done()
        bench.end(live)
        bench.end(await narrow)
        await bench.begin("full", "x", "c")
        await bench.begin("full", "x", "d")
        stuck = asyncio.create_task(bench.begin("full", "x", "a"))
        await asyncio.sleep(0.01)
        await bench.begin("free", "x", "a")
        stuck.cancel()

    run(body())


def test_who_gives_up_waiting_takes_nothing_along() -> None:
    """A caller that goes away, before or after its turn came, leaves no slot taken, and none is left in the queue."""

    async def body() -> None:
        bench = Bench(service=1, wait_s=5)
        held = await bench.begin()
        waiting = asyncio.create_task(bench.slots.grant(claim("ben")))
        await asyncio.sleep(0.01)
        bench.end(held)  # its turn has come, and it is told with the next round of the loop
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert bench.slots.holders(("service", "checkout")) == []
        (await bench.slots.grant(claim())).release()

    run(body())


def test_waiting_has_an_end() -> None:
    """Who waited in vain is told for how long, and too many requests of one user are refused at once."""

    async def body() -> None:
        bench = Bench(service=1, wait_s=0.3)
        await bench.begin()
        before = time.monotonic()
        waiting = [asyncio.create_task(bench.slots.grant(claim("ben"))) for _ in range(32)]
        await asyncio.sleep(0.01)
        with pytest.raises(ResourceExhausted):
            await bench.slots.grant(claim("ben"))
        assert time.monotonic() - before < 0.25
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, ResourceExhausted)
            assert "None of them ended within 0.3 s." in outcome.message
        assert 0.3 <= time.monotonic() - before < 3

    run(body())


def test_what_an_agent_did_not_confirm_stays_taken() -> None:
    """A session that ended without a word of its agents holds its slots until each has reported, later than that."""

    async def body() -> None:
        bench = Bench(service=1)
        bench.end(await bench.begin("ann", "checkout", "a", "b"), confirmed=False)
        with pytest.raises(
            ResourceExhausted, match=r"S1 by ann \(main.Pay, ends within 5\d s; over, but not confirmed by a, b\)"
        ):
            await bench.begin("ben")
        old, new = time.monotonic(), time.monotonic() + 1
        bench.slots.reported("a", arrived=new, starting=())
        bench.slots.reported("b", arrived=old, starting=())
        bench.slots.reported("b", arrived=new, starting=("S1",))
        assert (bench.slots.doubts("a"), bench.slots.doubts("b")) == (False, True)
        with pytest.raises(ResourceExhausted):
            await bench.begin("ben")
        bench.slots.reported("b", arrived=new, starting=())
        await bench.begin("ben")

    run(body())


def test_an_agent_that_was_never_heard_of_again_holds_nothing_for_ever() -> None:
    """A doubt ends by itself after the deadline that the agent holds alone."""

    async def body() -> None:
        bench = Bench(service=1)
        live = await bench.begin()
        past = Session(
            session_id="old", service_name="checkout", function_name="f", agent_id="", started_at_ns=0,
            expires_at_ns=time.time_ns() - 9_800_000_000, status=Status.LOST, requested_by="ann",
        )  # fmt: skip
        bench.end(live)
        bench.slots.doubt(past, ["a"])
        with pytest.raises(ResourceExhausted):
            await bench.begin()
        await asyncio.sleep(0.25)
        await bench.begin()

    run(body())


def test_a_host_that_comes_later_needs_a_slot_too() -> None:
    """A session takes in a further agent only where one is free."""

    async def body() -> None:
        bench = Bench(agent=1)
        first, second = await bench.begin("ann", "s", "a"), await bench.begin("ann", "s", "b")
        assert bench.slots.allows(first, "a")
        assert not bench.slots.allows(first, "b")
        bench.end(second)
        assert bench.slots.allows(first, "b")

    run(body())


def test_many_users_and_few_slots() -> None:
    """Of ten users with twenty requests each none waits for more than the others' turns; never are six served at once."""

    async def body() -> None:
        bench = Bench(service=5, wait_s=8)
        running: set[str] = set()
        most, longest = 0, 0
        log: list[str] = []

        async def user(name: str) -> None:
            nonlocal most, longest
            for _ in range(20):
                asked = len(log)
                grant: Grant = await bench.slots.grant(claim(name))
                with grant:
                    live = bench.add(grant.claim)
                log.append(name)
                longest = max(longest, max(Counter(log[asked:]).values()))
                running.add(live.session_id)
                most = max(most, len(running))
                await asyncio.sleep(0.001)
                running.discard(live.session_id)
                bench.end(live)

        await asyncio.gather(*(user(f"user-{number}") for number in range(10)))
        assert (most, Counter(log)) == (5, Counter({f"user-{number}": 20 for number in range(10)}))
        assert longest <= 2  # one turn, and one that was under way

    run(body())
