"""Channels to the agents: one to each, kept open, with a bound on how many calls run at once."""

from __future__ import annotations

import asyncio
import collections
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import grpc

from coral.client.agent import AgentClient
from coral.client.channel import connect
from coral.client.endpoint import Endpoint
from coral.colony.dialling import Dialling, PlainDialling
from coral.model.errors import DeadlineExceeded, Unavailable
from coral.model.service import Agent

T = TypeVar("T")

_PER_AGENT = 16
_OVERALL = 128
_RETIRED = 64
"""Old channels that are kept: long enough that no call is under way on one when it is dropped, and thereby closed."""


class Backoff:
    """Growing pauses between attempts, spread so that a colony's streams do not all come back at one moment."""

    def __init__(self, *, first_s: float = 0.1, last_s: float = 2.0) -> None:
        self._first_s = first_s
        self._last_s = last_s
        self._next_s = first_s

    def reset(self) -> None:
        """After a success: the next pause is the first again."""
        self._next_s = self._first_s

    def pause_s(self) -> float:
        """How long to wait now; doubles each time."""
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, self._last_s)
        return pause_s * random.uniform(0.75, 1.25)


@dataclass(slots=True)
class _Line:
    endpoint: Endpoint
    channel: grpc.aio.Channel
    calls: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_PER_AGENT))


class AgentPool:
    """Clients of agents. Unary calls are bounded; streams, one per running collector, are not.

    Args:
        dialling: How an agent is reached; None for plain text.
    """

    def __init__(self, dialling: Dialling | None = None) -> None:
        self._dialling = dialling or PlainDialling()
        self._lines: dict[str, _Line] = {}
        self._retired: collections.deque[_Line] = collections.deque(maxlen=_RETIRED)
        self._overall = asyncio.Semaphore(_OVERALL)

    def client(self, agent: Agent) -> AgentClient:
        """A client of an agent, for streams."""
        return AgentClient(
            self._line(agent).channel,
            peer=f"Agent {agent.agent_id!r} at {agent.address}",
            sign=self._dialling.sign(agent),
        )

    @asynccontextmanager
    async def calling(self, agent: Agent, *, timeout_s: float) -> AsyncIterator[AgentClient]:
        """A client of an agent for a unary call, once its turn has come.

        Raises:
            DeadlineExceeded: So many calls run that it did not within ``timeout_s``.
        """
        line = self._line(agent)
        try:
            async with asyncio.timeout(timeout_s):
                await line.calls.acquire()
        except TimeoutError:
            raise DeadlineExceeded(
                f"Agent {agent.agent_id!r} at {agent.address} has {_PER_AGENT} calls under way.", hint="Try again."
            ) from None
        try:
            async with self._overall:
                yield self.client(agent)
        finally:
            line.calls.release()

    async def call(
        self, agent: Agent, attempt: Callable[[AgentClient, float], Awaitable[T]], *, timeout_s: float, retry: bool = False
    ) -> T:
        """Makes a unary call.

        Args:
            agent: Whom to call.
            attempt: Makes it, given a client and how many seconds are left.
            timeout_s: For all attempts together.
            retry: Whether to try again when the agent cannot be reached, within that time; only for what may be repeated.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        backoff = Backoff()
        for attempts_left in (2, 1, 0):
            try:
                async with self.calling(agent, timeout_s=deadline - loop.time()) as client:
                    return await attempt(client, max(0.001, deadline - loop.time()))
            except Unavailable:
                pause_s = backoff.pause_s()
                if not retry or not attempts_left or loop.time() + pause_s >= deadline:
                    raise
                await asyncio.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")

    def renew(self, agent_id: str) -> None:
        """Uses a new channel to an agent from now on: the old one may be waiting to try again, and the agent is there now.

        Calls under way keep theirs.
        """
        line = self._lines.pop(agent_id, None)
        if line is not None:
            self._retired.append(line)

    async def drop(self, agent_id: str) -> None:
        """Ends the connection to an agent, and whatever runs over it."""
        line = self._lines.pop(agent_id, None)
        if line is not None:
            await line.channel.close()

    async def close(self) -> None:
        """Closes every channel."""
        lines = [*self._lines.values(), *self._retired]
        self._lines.clear()
        self._retired.clear()
        for line in lines:
            await line.channel.close()

    def _line(self, agent: Agent) -> _Line:
        endpoint = self._dialling.endpoint(agent)
        line = self._lines.get(agent.agent_id)
        if line is not None and line.endpoint != endpoint:  # it has moved, or is to be shown another certificate
            self.renew(agent.agent_id)
            line = None
        if line is None:
            line = self._lines[agent.agent_id] = _Line(endpoint=endpoint, channel=connect(endpoint))
        return line
