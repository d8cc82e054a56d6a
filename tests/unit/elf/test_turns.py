"""Who is answered next."""

from __future__ import annotations

import asyncio

import pytest

from coral.elf.turns import Turns
from coral.model.errors import ResourceExhausted


def test_files_take_turns_however_many_questions_one_has() -> None:
    """A hundred questions about one file delay another file by one."""

    async def run() -> list[str]:
        turns = Turns(at_once=1, waiting=100, waiting_for_one=50)
        answered: list[str] = []

        async def ask(key: str, name: str) -> None:
            async with turns.turn(key, key):
                answered.append(name)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(ask("slow", f"slow {number}"))
            group.create_task(ask("b", "b 0"))
            group.create_task(ask("c", "c 0"))
            group.create_task(ask("b", "b 1"))
        return answered

    assert asyncio.run(run()) == ["slow 0", "slow 1", "b 0", "c 0", "slow 2", "b 1", "slow 3"]


def test_as_many_run_as_may_and_of_one_file_one() -> None:
    """Two at once are two files."""

    async def run() -> tuple[int, int]:
        turns = Turns(at_once=2, waiting=100, waiting_for_one=50)
        running: list[str] = []
        most, most_of_one = 0, 0

        async def ask(key: str) -> None:
            nonlocal most, most_of_one
            async with turns.turn(key, key):
                running.append(key)
                most, most_of_one = max(most, len(running)), max(most_of_one, running.count(key))
                await asyncio.sleep(0.001)
                running.remove(key)

        async with asyncio.TaskGroup() as group:
            for key in "aaabbbccc":
                group.create_task(ask(key))
        return most, most_of_one

    assert asyncio.run(run()) == (2, 1)


def test_more_than_may_wait_are_refused() -> None:
    """For one file, and in all."""

    async def run() -> None:
        turns = Turns(at_once=1, waiting=3, waiting_for_one=2)
        done = asyncio.Event()

        async def ask(key: str) -> None:
            async with turns.turn(key, key):
                await done.wait()

        async with asyncio.TaskGroup() as group:
            for key in "aaa":  # one has its turn, two wait
                group.create_task(ask(key))
            await asyncio.sleep(0.01)
            with pytest.raises(ResourceExhausted, match="Too many questions about a and other files"):
                await ask("a")
            group.create_task(ask("b"))
            await asyncio.sleep(0.01)
            with pytest.raises(ResourceExhausted, match="Too many questions about c"):
                await ask("c")
            done.set()

    asyncio.run(run())


def test_who_goes_away_loses_the_turn_and_nobody_else_does() -> None:
    """Cancelled while waiting, in its turn, or in the moment in which the turn comes."""

    async def run() -> list[str]:
        turns = Turns(at_once=1, waiting=9, waiting_for_one=9)
        answered: list[str] = []

        async def ask(name: str) -> None:
            async with turns.turn("file", "file"):
                answered.append(name)
                await asyncio.sleep(0.01)

        first, second, third, last = [asyncio.create_task(ask(name)) for name in ("first", "second", "third", "last")]
        await asyncio.sleep(0.001)
        second.cancel()
        first.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        third.cancel()
        await last
        await asyncio.gather(first, second, third, return_exceptions=True)
        async with turns.turn("file", "file"):
            return answered

    answered = asyncio.run(run())
    assert answered[0] == "first"
    assert answered[-1] == "last"
    assert "second" not in answered
