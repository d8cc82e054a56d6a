"""What the agent asks about files, answered by a worker process that is started early, kept warm, and replaced when it fails.

LIEF alone takes half a second to import and files are written by others, so neither belongs in a daemon: the worker has
limits on memory and time, and what it answered is remembered here by the image's key.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self, TypeVar

from coral.elf.image import ImageInfo, ImageKey, OpenFile
from coral.elf.messages import error_from_json, info_from_json, plan_from_json, read_exactly
from coral.model.errors import DeadlineExceeded, Internal
from coral.model.site import FunctionPlan

_LENGTH = struct.Struct(">I")
_REMEMBERED = 1024
_LEAVE_S = 0.2
"""A worker whose connection was closed leaves by itself, unless it hangs."""
_K = TypeVar("_K")
_V = TypeVar("_V")


class _Child:
    """One worker process and the socket to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            # Started by the event loop's own thread: the worker asks to die with the thread that started it.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "coral.elf.worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self.connection = ours

    def exchange(self, request: bytes, descriptors: Sequence[int], limit_s: float) -> dict[str, Any]:
        """Sends a request with its descriptors, and waits for the answer.

        Raises:
            TimeoutError: It did not come in time.
            EOFError, OSError: The worker died.
        """
        self.connection.settimeout(limit_s)
        socket.send_fds(self.connection, [_LENGTH.pack(len(request))], descriptors)
        self.connection.sendall(request)
        (size_bytes,) = _LENGTH.unpack(read_exactly(self.connection, _LENGTH.size))
        answer: dict[str, Any] = json.loads(read_exactly(self.connection, size_bytes))
        return answer

    def end(self) -> int:
        """Ends it and collects its exit status: its own, if it has one; else it is killed."""
        self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()
        try:
            return self.process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Parser:
    """Reads files, in another process. An async context manager: entering starts the worker, leaving ends it.

    Args:
        limit_s: How long one request may take; then the worker is killed and replaced.
    """

    def __init__(self, *, limit_s: float = 20.0) -> None:
        self._limit_s = limit_s
        self._child: _Child | None = None
        self._lock = asyncio.Lock()
        self._infos: OrderedDict[ImageKey, ImageInfo] = OrderedDict()
        self._plans: OrderedDict[tuple[tuple[ImageKey, ...], str, str], FunctionPlan] = OrderedDict()

    async def __aenter__(self) -> Self:
        self._child = _Child()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    @property
    def pid(self) -> int | None:
        """The worker's process id; None while there is none."""
        return self._child.process.pid if self._child is not None else None

    async def identify(self, fd: int, key: ImageKey, path: str) -> ImageInfo:
        """What an image says about itself.

        Args:
            fd: The open image.
            key: ``ImageKey.of_fd(fd)``.
            path: For messages.

        Raises:
            FailedPrecondition: It is no ELF file for x86-64, or was changed meanwhile.
            DeadlineExceeded: Reading it took too long.
            Internal: The worker died of it.
        """
        known = self._infos.get(key)
        if known is None:
            known = info_from_json(await self._call([OpenFile(fd=fd, key=key, path=path)], operation="identify"))
            _remember(self._infos, key, known)
        return known

    async def plan(
        self,
        fd: int,
        key: ImageKey,
        path: str,
        function: str,
        *,
        library: str = "",
        debug: Sequence[OpenFile] = (),
    ) -> FunctionPlan:
        """How a function of an image is probed.

        Args:
            fd: The open image.
            key: ``ImageKey.of_fd(fd)``.
            path: For messages.
            function: ``NAME`` or ``FILE:NAME``.
            library: Base name of the image, when it is not the program itself.
            debug: Files that may hold its symbols, the likeliest first, at most ``MOST_FILES - 1``; see ``Program``.

        Raises:
            NotFound: There is no such function; the hint has the nearest names.
            AmbiguousName: There are several; the hint has up to ten.
            FailedPrecondition: It cannot be probed, and the message says why; or as for ``identify``.
            DeadlineExceeded, Internal: As for ``identify``.
        """
        files = [OpenFile(fd=fd, key=key, path=path), *debug]
        question = (tuple(file.key for file in files), function, library)
        known = self._plans.get(question)
        if known is None:
            known = plan_from_json(await self._call(files, operation="plan", function=function, library=library))
            _remember(self._plans, question, known)
        return known

    async def _call(self, files: Sequence[OpenFile], **request: object) -> Any:
        """Asks the worker about the first of ``files``; the others may hold its symbols."""
        path = files[0].path
        named = [{"key": asdict(file.key), "path": file.path, "linked": file.linked} for file in files]
        message = json.dumps({"files": named, **request}).encode()
        async with self._lock:
            if self._child is None:
                self._child = _Child()
            child = self._child
            try:
                answer = await asyncio.to_thread(child.exchange, message, [file.fd for file in files], self._limit_s)
            except asyncio.CancelledError:
                # The thread still waits for an answer that nobody wants any more; a dead worker ends that.
                self._child = None
                child.end()
                raise
            except TimeoutError as error:
                await self._end()
                raise DeadlineExceeded(
                    f"Reading {path} took more than {self._limit_s:g} s.", hint="It was given up; try another function."
                ) from error
            except (EOFError, OSError) as error:
                status = await self._end()
                raise Internal(
                    f"The process that reads files ended with status {status} on {path}.", hint="It was started again."
                ) from error
        if "error" in answer:
            raise error_from_json(answer["error"])
        return answer["ok"]

    async def _end(self) -> int | None:
        child, self._child = self._child, None
        return await asyncio.to_thread(child.end) if child is not None else None


def _remember(cache: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    cache[key] = value
    while len(cache) > _REMEMBERED:
        cache.popitem(last=False)
