"""A TCP link that can be made bad: between an agent and its colony, in either direction, or before a command.

It forwards one port to another from a thread of its own, so that neither end knows of it. What it does to a connection is
what networks do: they end it, refuse it, swallow what is sent without a word, take their time, or are narrow.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_CHUNK_BYTES = 16 << 10
_IN_FLIGHT = 64
"""Chunks of one direction that are on their way while there is a delay."""


@dataclass(slots=True, eq=False)
class _Connection:
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    passing: asyncio.Event = field(default_factory=asyncio.Event)
    forgotten: bool = False


class Link:
    """Forwards to ``target``. Every method may be called from any thread, and has taken effect when it returns.

    Attributes:
        address: HOST:PORT that it listens on; stays the same while it is refused.
        carried_bytes: What it has carried, both ways.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.carried_bytes = 0
        self._connections: set[_Connection] = set()
        self._open = True
        self._passes = True
        self._delay_s = 0.0
        self._bytes_per_s = 0.0
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)
        self._thread.start()
        self._do(self._listen)

    @property
    def connections(self) -> int:
        """How many go through it now, those that it has forgotten included."""
        return len(self._connections)

    def lead_to(self, target: str) -> None:
        """Leads new connections somewhere else, and ends those that there are: what was there has moved."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._do(self._reset)

    def cut(self) -> None:
        """Ends every connection, and refuses new ones until ``heal``."""
        self._do(self._cut)

    def reset(self) -> None:
        """Ends every connection; new ones are taken."""
        self._do(self._reset)

    def black_hole(self) -> None:
        """Swallows what both ends send, without a word, on connections old and new, until ``heal``."""
        self._do(self._swallow)

    def forget(self) -> None:
        """Loses the connections that there are without telling either end, as a restarted firewall does; new ones work."""
        self._do(self._forget)

    def narrow(self, *, delay_s: float = 0.0, bytes_per_s: float = 0.0) -> None:
        """Takes ``delay_s`` for what it carries, and carries ``bytes_per_s`` in each direction of a connection; 0 for any."""
        self._delay_s, self._bytes_per_s = delay_s, bytes_per_s

    def heal(self) -> None:
        """Is a good link again. Connections that it swallowed for go on; those that it has forgotten do not."""
        self._do(self._heal)

    def close(self) -> None:
        """Ends it and its thread."""
        self._do(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._listening.close()

    def _do(self, change: Callable[[], object]) -> None:
        async def run() -> None:
            outcome = change()
            if asyncio.iscoroutine(outcome):
                await outcome

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, sock=self._listening)

    async def _cut(self) -> None:
        self._open = False
        self._reset()
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _end(self) -> None:
        await self._cut()
        accepted = asyncio.all_tasks() - {asyncio.current_task()}
        for task in accepted:
            task.cancel()
        if accepted:
            await asyncio.wait(accepted)

    async def _heal(self) -> None:
        self._passes = True
        self._delay_s = self._bytes_per_s = 0.0
        for connection in self._connections:
            if not connection.forgotten:
                connection.passing.set()
        if not self._open:
            self._open = True
            host, port = self.address.rsplit(":", 1)
            self._listening = socket.create_server((host, int(port)))
            await self._listen()

    def _swallow(self) -> None:
        self._passes = False
        for connection in self._connections:
            connection.passing.clear()

    def _forget(self) -> None:
        for connection in self._connections:
            connection.forgotten = True
            connection.passing.clear()

    def _reset(self) -> None:
        for connection in list(self._connections):
            for writer in connection.writers:
                writer.transport.abort()
            for task in connection.tasks:
                task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection()
        if self._passes:
            connection.passing.set()
        self._connections.add(connection)
        connection.writers.append(writer)
        try:
            await connection.passing.wait()
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            connection.writers.append(far_writer)
            connection.tasks += [
                asyncio.create_task(self._carry(connection, reader, far_writer)),
                asyncio.create_task(self._carry(connection, far_reader, writer)),
            ]
            await asyncio.wait(connection.tasks)
        except OSError:
            writer.transport.abort()  # nobody listens there: as a refusal, as far as this end can tell
        except asyncio.CancelledError:
            return  # the link is closed; asyncio's streams would report a task that ends by this
        finally:
            for each in connection.writers:
                each.transport.abort()
            self._connections.discard(connection)

    async def _carry(self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries one direction, in order, each chunk when its time has come."""
        loop = asyncio.get_running_loop()
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_IN_FLIGHT)
        delivering = asyncio.create_task(self._deliver(connection, on_the_way, writer))
        try:
            with suppress(OSError):
                while chunk := await reader.read(_CHUNK_BYTES):
                    await on_the_way.put((loop.time() + self._delay_s, chunk))
            await on_the_way.put((0.0, b""))
            await delivering
        finally:
            delivering.cancel()

    async def _deliver(
        self, connection: _Connection, on_the_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, chunk = await on_the_way.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            await connection.passing.wait()
            if not chunk:
                with suppress(OSError):
                    writer.write_eof()
                return
            if self._bytes_per_s:
                await asyncio.sleep(len(chunk) / self._bytes_per_s)
            try:
                writer.write(chunk)
                await writer.drain()
            except OSError:
                return
            self.carried_bytes += len(chunk)


@contextmanager
def link_to(target: str) -> Iterator[Link]:
    """A good link to HOST:PORT, for as long as the block lasts."""
    link = Link(target)
    try:
        yield link
    finally:
        link.close()
