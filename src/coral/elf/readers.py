"""The agent's side of the processes that parse files: the template, and one reader per image that was asked about lately.

A reader that has read a hostile file is not trusted: what it sends is bounded here, and checked in ``messages``.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from coral.elf.messages import error_from_json, read_exactly
from coral.model.errors import FailedPrecondition, Internal, ResourceExhausted
from coral.model.text import printable

_LENGTH = struct.Struct(">I")
_MOST_ANSWER_BYTES = 64 << 20
"""The plan of a function with 65,535 sites is 13 MB, a page of 100,000 functions 20 MB."""
_GREETING_BYTES = 1 << 16
_START_S = 60.0
"""Python and its libraries are imported in that time on any host that can run them."""
_FORK_S = 30.0
_LEAVE_S = 0.2
"""A process whose connection was closed leaves by itself, unless it hangs."""
_KEPT = 6
_IDLE_BYTES = 512 << 20
"""What a reader may hold on to between two questions; one that has listed 100,000 functions holds 240 MB."""
_ALL_IDLE_BYTES = 1 << 30
"""What all of them may."""
_RSS_ANON = re.compile(r"^RssAnon:\s+(\d+) kB$", re.MULTILINE)


class ReaderDied(Exception):
    """The reader ended instead of answering.

    Attributes:
        status: Its exit status, negative for a signal; None when it is not known.
        defect: What it said before, if that was an error of Coral's code.
        out_of_memory: Whether it said that its memory did not suffice.
    """

    def __init__(self, status: int | None, *, defect: str = "", out_of_memory: bool = False) -> None:
        super().__init__(f"ended with status {status}")
        self.status = status
        self.defect = defect
        self.out_of_memory = out_of_memory


class Reader:
    """One reader, a handle on its process, and the stream to it."""

    def __init__(self, pid: int, handle: int, connection: socket.socket) -> None:
        self.pid = pid
        self._handle = handle
        self.connection = connection

    def exchange(self, request: bytes, descriptors: Sequence[int], limit_s: float) -> dict[str, Any]:
        """Sends a request with its descriptors, and waits for the answer.

        Raises:
            TimeoutError: It did not come in time.
            EOFError, OSError: The reader died.
            ValueError: It is too large, or is no answer.
        """
        deadline = time.monotonic() + limit_s
        self.connection.settimeout(limit_s)
        socket.send_fds(self.connection, [_LENGTH.pack(len(request))], descriptors)
        self.connection.sendall(request)
        return self.receive(deadline, _MOST_ANSWER_BYTES)

    def receive(self, deadline: float, most_bytes: int) -> dict[str, Any]:
        """The next message, of up to ``most_bytes``, before ``time.monotonic()`` says ``deadline``; errors as above."""
        (size_bytes,) = _LENGTH.unpack(read_exactly(self.connection, _LENGTH.size, deadline))
        if size_bytes > most_bytes:
            raise ValueError(f"{size_bytes:,} bytes where {most_bytes:,} are the most")
        try:
            answer = json.loads(read_exactly(self.connection, size_bytes, deadline))
        except RecursionError:
            raise ValueError("nested without end") from None
        if not isinstance(answer, dict):
            raise ValueError("not an object")  # noqa: TRY004 - the sender's mistake, as the ones above
        return answer

    def kill(self) -> None:
        """Ends it at once, and whoever waits for its answer. It is still to be collected."""
        # By handle: should the template be gone, then somebody else may have the process id by now.
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        self.forget()

    def forget(self) -> None:
        """Closes what is held here of one that has ended."""
        os.close(self._handle)
        _disconnect(self.connection)

    @property
    def memory_bytes(self) -> int:
        """What it has allocated and touched."""
        try:
            match = _RSS_ANON.search(Path(f"/proc/{self.pid}/status").read_text())
        except OSError:
            return 0
        return int(match[1]) << 10 if match is not None else 0


def _disconnect(connection: socket.socket) -> None:
    """Closes, and wakes a thread that waits for something to come."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def _without_own(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith("CORAL_")}


class _Template:
    """The process that forks readers. Its methods block, and may be called by any thread."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # Started by the event loop's own thread: it asks to die with the thread that started it.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "coral.elf.worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Threads would not be confined, and a fork leaves them behind. Readers inherit all of this: no credentials.
                env={**_without_own(os.environ), "OPENBLAS_NUM_THREADS": "1"},
            )
        self._control = ours
        self._lock = threading.Lock()
        self._greeted = False
        self.left_out: list[str] = []

    def fork(self) -> Reader:
        """A new reader.

        Raises:
            CoralError: It could not be started, or not confined.
            OSError, EOFError, ValueError: The template died.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs, self._lock:
            self._greet()
            socket.send_fds(self._control, [b"f"], [theirs.fileno()])
            packet, handles, _, _ = socket.recv_fds(self._control, _GREETING_BYTES, 1)
            if not packet:
                raise EOFError("the template ended")
            if not handles:
                reason = printable(packet.decode(errors="replace"))
                raise ResourceExhausted(f"No process could be started to read files: {reason}.", hint="Try again.")
            reader = Reader(int(packet), handles[0], ours)
        greeting = reader.receive(time.monotonic() + _FORK_S, _GREETING_BYTES)
        if "error" in greeting:
            raise error_from_json(greeting["error"])
        self._note(greeting)
        return reader

    def _greet(self) -> None:
        if self._greeted:
            return
        self._control.settimeout(_START_S)
        greeting = json.loads(self._receive())
        if "error" in greeting:
            raise error_from_json(greeting["error"])
        self._note(greeting)
        self._control.settimeout(_FORK_S)
        self._greeted = True

    def _note(self, greeting: dict[str, Any]) -> None:
        self.left_out += [reason for reason in greeting["left_out"] if reason not in self.left_out]

    def collect(self, reader: Reader) -> int:
        """The exit status of a reader that ended or was killed.

        Raises:
            OSError, EOFError, ValueError: The template died.
        """
        with self._lock:
            self._control.send(b"w%d" % reader.pid)
            return int(self._receive())

    def _receive(self) -> bytes:
        packet = self._control.recv(_GREETING_BYTES)
        if not packet:
            raise EOFError("the template ended")
        return packet

    def end(self) -> int:
        """Ends it, and with it all of its readers; its exit status."""
        _disconnect(self._control)
        try:
            return self.process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Readers:
    """Readers by what they read. Used by one event loop; of one key, one question is asked at a time.

    Call ``start`` first and ``end`` last.

    Attributes:
        lost: Why nothing can be read any more: a template that ended cannot be replaced by one that is confined as well,
            since this process has given up the privileges that this takes. Empty as long as something can.
    """

    def __init__(self) -> None:
        self._template: _Template | None = None
        self._readers: OrderedDict[Hashable, Reader] = OrderedDict()
        self._asking: set[Hashable] = set()
        self._first: _Template | None = None
        self._left_out: frozenset[str] | None = None
        self.lost = ""

    def start(self) -> None:
        """Starts the template, unless it was; returns before it is ready."""
        if self._template is None:
            self._template = self._first = _Template()

    @property
    def left_out(self) -> list[str]:
        """How readers are not confined on this host, and why; known once something was read."""
        return self._template.left_out if self._template is not None else []

    @property
    def template_pid(self) -> int | None:
        """The template's process id."""
        return self._template.process.pid if self._template is not None else None

    @property
    def pids(self) -> list[int]:
        """The readers' process ids."""
        return [reader.pid for reader in self._readers.values()]

    async def ask(self, key: Hashable, request: bytes, descriptors: Sequence[int], *, limit_s: float) -> dict[str, Any]:
        """Has a reader answer.

        Args:
            key: Of what it is about; a reader reads nothing else.
            request: Encoded.
            descriptors: To send along.
            limit_s: How long it may take, once the reader is there.

        Returns:
            Something with ``ok`` or ``error``; nothing else of it is checked.

        Raises:
            TimeoutError: It took longer; the reader is gone.
            ReaderDied: It is gone, by itself.
            CoralError: There is no confined process to do it.
        """
        reader = self._readers.get(key) or await self._new(key)
        self._readers.move_to_end(key)
        self._asking.add(key)
        try:
            answer = await asyncio.to_thread(reader.exchange, request, descriptors, limit_s)
        except asyncio.CancelledError:
            # The thread still waits for an answer that nobody wants any more; a dead reader ends that.
            await asyncio.shield(self._end(key))
            raise
        except TimeoutError:
            await self.dismiss(key)
            raise
        except ValueError as error:
            await self.dismiss(key)
            raise ReaderDied(None, defect=f"its answer was {error}") from None
        except (EOFError, OSError):
            raise ReaderDied(await self._end(key)) from None
        finally:
            self._asking.discard(key)
        if "ok" in answer or "error" in answer:
            await self._settle(key, reader)
            return answer
        raise ReaderDied(
            await self._end(key),
            defect=str(answer.get("defect", ""))[:_GREETING_BYTES],
            out_of_memory=bool(answer.get("memory")),
        )

    async def _new(self, key: Hashable) -> Reader:
        for attempt in range(2):
            if self._template is None:
                self._template = _Template()
            template = self._template
            forking = asyncio.create_task(asyncio.to_thread(template.fork))
            try:
                reader = await asyncio.shield(forking)
            except asyncio.CancelledError:
                forking.add_done_callback(partial(self._adopt, template))
                raise
            except (OSError, EOFError, ValueError) as error:
                status = await self._replace(template)
                if attempt:
                    raise Internal(
                        f"The process that reads files ended with status {status} before it read one.",
                        hint="What it wrote to standard error says why.",
                    ) from error
            else:
                await self._require_as_confined(template, reader)
                self._readers[key] = reader
                return reader
        raise AssertionError("unreachable: the second attempt returns or raises")

    async def _require_as_confined(self, template: _Template, reader: Reader) -> None:
        """Refuses a reader that is confined less than the first one was.

        Raises:
            FailedPrecondition: It is.
        """
        left_out = frozenset(template.left_out)
        if self._left_out is None:
            # Of one that took the place of the first before that had read anything, nothing less is taken than everything.
            self._left_out = left_out if template is self._first else frozenset()
        if worse := left_out - self._left_out:
            reader.kill()
            await self._replace(template)
            self.lost = f"The process that reads files ended, and a new one would lack {'; '.join(sorted(worse))}."
            raise FailedPrecondition(self.lost, hint="The agent has to be started again; it does so itself when it is idle.")

    def _adopt(self, template: _Template, forking: asyncio.Task[Reader]) -> None:
        """Keeps a reader that nobody waits for any more among the others, until it is ended as the oldest of them."""
        if forking.exception() is not None:
            return
        if self._template is template:
            self._readers[object()] = forking.result()
        else:
            forking.result().kill()

    async def _replace(self, template: _Template) -> int | None:
        """Has a new template started next time; what the old one's readers were is over with it."""
        if self._template is not template:
            return None
        self._template = None
        for reader in self._readers.values():
            reader.forget()
        self._readers.clear()
        return await asyncio.to_thread(template.end)

    async def dismiss(self, key: Hashable) -> None:
        """Ends the reader of ``key``, if there is one."""
        await self._end(key)

    async def _settle(self, key: Hashable, reader: Reader) -> None:
        """Ends readers that are too large to keep, or too many."""
        if reader.memory_bytes > _IDLE_BYTES:
            await self._end(key)
        while len(self._readers) > _KEPT or sum(each.memory_bytes for each in self._readers.values()) > _ALL_IDLE_BYTES:
            oldest = next((each for each in self._readers if each not in self._asking), None)
            if oldest is None:
                return
            await self._end(oldest)

    async def _end(self, key: Hashable) -> int | None:
        """Ends a reader and collects its exit status: its own, if it has one; None when that is lost."""
        reader = self._readers.pop(key, None)
        template = self._template
        if reader is None or template is None:
            return None
        reader.kill()
        try:
            return await asyncio.to_thread(template.collect, reader)
        except (OSError, EOFError, ValueError):
            await self._replace(template)
            return None

    async def end(self) -> None:
        """Ends all of them."""
        for key in list(self._readers):
            await self._end(key)
        template, self._template = self._template, None
        if template is not None:
            await asyncio.to_thread(template.end)
