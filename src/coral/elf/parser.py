"""What the agent asks about files, answered by confined processes, one per image, that are replaced when they fail.

Files are written by others, so reading them does not belong in a daemon: readers have limits on memory and time, and may be
taken over by what they read. What they answered is checked and remembered here, by the image's key; so is a file that brought
its reader down, which is refused for a while, so that it costs that once and not with every question.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from coral.elf.image import ImageInfo, ImageKey, OpenFile
from coral.elf.inspect_messages import explanation_from_json, page_from_json
from coral.elf.messages import check_original, error_from_json, info_from_json, plan_from_json
from coral.elf.readers import ReaderDied, Readers
from coral.elf.sandbox import MEMORY_BYTES
from coral.elf.shape import shaped
from coral.elf.turns import Turns
from coral.model.errors import CoralError, DeadlineExceeded, FailedPrecondition, Internal, NotFound
from coral.model.inspection import FunctionExplanation, FunctionPage
from coral.model.site import FunctionPlan
from coral.model.text import printable

_REMEMBERED = 1024
_AT_ONCE = 2
"""Readers at work: one that runs until its limit leaves room for another."""
_WAITING = 512
_WAITING_FOR_ONE = 64
_REFUSED_S = 60.0
_PATIENCE = 2.0
"""How many times the limit of CPU time a request may take when the host has other things to do."""
_K = TypeVar("_K")
_V = TypeVar("_V")


class Parser:
    """Reads files, in other processes. An async context manager: entering starts them, leaving ends them.

    Args:
        limit_s: How much CPU time one request may take, and half of how long; then its reader is killed.
    """

    def __init__(self, *, limit_s: float = 20.0) -> None:
        self._limit_s = limit_s
        self._readers = Readers()
        self._turns = Turns(at_once=_AT_ONCE, waiting=_WAITING, waiting_for_one=_WAITING_FOR_ONE)
        self._infos: OrderedDict[ImageKey, ImageInfo] = OrderedDict()
        self._plans: OrderedDict[tuple[tuple[ImageKey, ...], str, str], FunctionPlan] = OrderedDict()
        self._absent: OrderedDict[tuple[tuple[ImageKey, ...], str, str], None] = OrderedDict()
        self._refusals: OrderedDict[tuple[ImageKey, ...], tuple[float, CoralError]] = OrderedDict()

    async def __aenter__(self) -> Self:
        self._readers.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._readers.end()

    def start(self) -> None:
        """Starts the process that readers are forked from ahead of the context: before this one gives up its privileges."""
        self._readers.start()

    @property
    def lost(self) -> str:
        """Why nothing can be read any more, until this process is started anew; empty as long as something can."""
        return self._readers.lost

    @property
    def left_out(self) -> list[str]:
        """In which ways the processes that read files are not confined on this host; known once one was read."""
        return self._readers.left_out

    @property
    def template_pid(self) -> int | None:
        """The process that readers are forked from; None while there is none."""
        return self._readers.template_pid

    @property
    def reader_pids(self) -> list[int]:
        """The processes that read, the one that was asked last at the end."""
        return self._readers.pids

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
            known = await self._call([OpenFile(fd=fd, key=key, path=path)], info_from_json, operation="identify")
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
        advise: bool = True,
    ) -> FunctionPlan:
        """How a function of an image is probed.

        Args:
            fd: The open image.
            key: ``ImageKey.of_fd(fd)``.
            path: For messages.
            function: ``NAME`` or ``FILE:NAME``.
            library: Base name of the image, when it is not the program itself.
            debug: Files that may hold its symbols, the likeliest first, at most ``MOST_FILES - 1``; see ``Program``.
            advise: Whether the nearest names are looked for when there is no such function; without, that is remembered.

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
            if not advise and question in self._absent:
                raise NotFound(f"{path} has no function {printable(function)!r}.")
            decode = partial(_plan_of, fd)
            request = {"operation": "plan", "function": function, "library": library, "advise": advise}
            try:
                known = await self._call(files, decode, **request)
            except NotFound:
                _remember(self._absent, question, None)
                raise
            _remember(self._plans, question, known)
        return known

    async def explain(self, files: Sequence[OpenFile], function: str, *, library: str = "") -> FunctionExplanation:
        """What an attach to a function of an image would do; one that would be refused is explained too.

        Args:
            files: The open image, then files that may hold its symbols.
            function: ``NAME`` or ``FILE:NAME``.
            library: Base name of the image, when it is not the program itself.

        Raises:
            NotFound, AmbiguousName: As for ``plan``.
            FailedPrecondition, DeadlineExceeded, Internal: As for ``identify``.
        """
        return await self._call(files, explanation_from_json, operation="explain", function=function, library=library)

    async def judge(self, files: Sequence[OpenFile], *, pattern: str, offset: int, limit: int, budget_s: float) -> int:
        """Has functions of a page decoded for about ``budget_s``; returns how many are left. Raises as ``identify``."""
        whole = partial(shaped, int)
        return await self._call(files, whole, operation="judge", page=[pattern, offset, limit], budget_s=budget_s)

    async def functions(self, files: Sequence[OpenFile], *, pattern: str, offset: int, limit: int) -> FunctionPage:
        """A page of the functions of an image, with the verdicts there are.

        Args:
            files: The open image, then files that may hold its symbols.
            pattern: As ``Listing.page`` has it.
            offset: How many matches to pass over.
            limit: The most there may be on the page.

        Raises:
            FailedPrecondition, DeadlineExceeded, Internal: As for ``identify``.
        """
        return await self._call(files, page_from_json, operation="list", page=[pattern, offset, limit])

    async def _call(self, files: Sequence[OpenFile], decode: Callable[[Any], _V], **request: object) -> _V:
        """Asks a reader about the first of ``files``; the others may hold its symbols.

        ``decode`` makes the answer of what JSON has, in a thread, and raises ValueError when that cannot be one.
        """
        path = printable(files[0].path)
        keys = tuple(file.key for file in files)
        for file in files:
            if not stat.S_ISREG(os.fstat(file.fd).st_mode):
                raise FailedPrecondition(f"{printable(file.path)} is no regular file.", hint="Only files on disk are read.")
        named = [{"key": asdict(file.key), "path": printable(file.path), "linked": file.linked} for file in files]
        message = json.dumps({"files": named, "limit_s": self._limit_s, **request}).encode()
        async with self._turns.turn(keys, path):
            self._check_refusal(keys)
            try:
                return await self._ask(keys, message, files, decode)
            except (TimeoutError, ReaderDied) as error:
                failure = self._failure(files, error)
                self._refusals[keys] = (time.monotonic() + _REFUSED_S, failure)
                while len(self._refusals) > _REMEMBERED:
                    self._refusals.popitem(last=False)
                raise failure from error

    async def _ask(
        self, keys: tuple[ImageKey, ...], message: bytes, files: Sequence[OpenFile], decode: Callable[[Any], _V]
    ) -> _V:
        descriptors = [file.fd for file in files]
        try:
            answer = await self._readers.ask(keys, message, descriptors, limit_s=_PATIENCE * self._limit_s)
        except ReaderDied as error:
            # Killed by somebody else, or gone with its template: not necessarily the file's doing. Twice is.
            if error.status not in (None, -signal.SIGKILL) or error.defect:
                raise
            answer = await self._readers.ask(keys, message, descriptors, limit_s=_PATIENCE * self._limit_s)
        try:
            if "error" in answer:
                failure = error_from_json(answer["error"])
            else:
                return await asyncio.to_thread(decode, answer["ok"])
        except ValueError as error:
            await self._readers.dismiss(keys)
            raise ReaderDied(None, defect=f"an answer that cannot be: {error}") from None
        raise failure

    def _check_refusal(self, keys: tuple[ImageKey, ...]) -> None:
        """Refuses what brought its reader down a short time ago."""
        until, failure = self._refusals.get(keys, (0.0, None))
        if failure is None:
            return
        left_s = until - time.monotonic()
        if left_s <= 0:
            del self._refusals[keys]
            return
        raise type(failure)(
            failure.message, hint=f"It is not read again for {left_s:.0f} s. {failure.hint}".rstrip(), details=failure.details
        )

    def _failure(self, files: Sequence[OpenFile], error: TimeoutError | ReaderDied) -> CoralError:
        """What it means that a reader was lost."""
        path = printable(files[0].path)
        if any(ImageKey.of_fd(file.fd) != file.key for file in files):
            return FailedPrecondition(f"{path} was changed while it was read.", hint="Try again once it is complete.")
        if isinstance(error, TimeoutError) or error.status == -signal.SIGPROF:
            return DeadlineExceeded(f"Reading {path} took more than {self._limit_s:g} s.", hint="It was given up.")
        if error.status == -signal.SIGBUS:
            return FailedPrecondition(
                f"{path} was shortened while it was read, or its disk could not be read.", hint="Look for disk errors."
            )
        if error.out_of_memory:
            return FailedPrecondition(
                f"{path} needs more than {MEMORY_BYTES >> 30} GiB of memory to read.", hint="It is damaged, or too large."
            )
        how = printable(error.defect) if error.defect else f"status {error.status}"
        return Internal(f"The process that read {path} ended with {how}.", hint="If the file is intact, report this.")


def _plan_of(fd: int, value: Any) -> FunctionPlan:
    plan = plan_from_json(value)
    check_original(fd, plan)
    return plan


def _remember(cache: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    cache[key] = value
    while len(cache) > _REMEMBERED:
        cache.popitem(last=False)
