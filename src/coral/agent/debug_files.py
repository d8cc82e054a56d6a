"""Finds the files that hold what was stripped from an image: by its build id, and by the name that it gives.

They are looked for as the process sees them, since a container brings its own, and then on the host. Where, is GDB's
convention ("Debugging Information in Separate Files"). Whether a file is the right one, the worker decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath

import structlog

from coral.elf.image import ImageInfo, OpenFile
from coral.elf.messages import MOST_FILES
from coral.procfs.below_root import open_below, open_regular, open_root

USUAL_FOLDERS = ("/usr/lib/debug",)
_LIMIT_S = 2.0
_BUILD_ID = re.compile(r"[0-9a-f]{4,}")
_MOST_WAITING = 4
"""Threads that hang in a file system which does not answer."""

_log = structlog.get_logger(__name__)


class DebugFiles:
    """Looks for the debug files of images.

    Args:
        folders: Where they are, beside the places that an image's own path gives; absolute.
    """

    def __init__(self, folders: Sequence[str] = USUAL_FOLDERS) -> None:
        self._folders = tuple(PurePosixPath(folder) for folder in folders)
        self._waiting = 0

    @asynccontextmanager
    async def beside(self, pid: int, path: str, info: ImageInfo) -> AsyncIterator[list[OpenFile]]:
        """The files that may hold what was stripped from an image, open for as long as the context lasts.

        Args:
            pid: A process that runs it.
            path: Of the image, as the process sees it.
            info: What the image says about itself.
        """
        found: list[OpenFile] = []
        if info.stripped and (info.build_id or info.debug_link):
            found = await self._within_limit(lambda: self._open_all(pid, path, info))
        try:
            yield found
        finally:
            _close(found)

    async def _within_limit(self, work: Callable[[], list[OpenFile]]) -> list[OpenFile]:
        """What ``work`` finds; nothing when it hangs, as it may in a file system that a user of the host serves."""
        if self._waiting >= _MOST_WAITING:
            return []
        loop = asyncio.get_running_loop()
        result: asyncio.Future[list[OpenFile]] = loop.create_future()

        def deliver(found: list[OpenFile]) -> None:
            self._waiting -= 1
            if result.done():
                _close(found)
            else:
                result.set_result(found)

        def run() -> None:
            found = work()
            try:
                loop.call_soon_threadsafe(deliver, found)
            except RuntimeError:  # the agent has ended meanwhile
                _close(found)

        self._waiting += 1
        # Not a thread of a pool: those are waited for at exit.
        threading.Thread(target=run, name="debug files", daemon=True).start()
        try:
            async with asyncio.timeout(_LIMIT_S):
                return await result
        except TimeoutError:
            _log.warning("looking for debug files was given up", seconds=_LIMIT_S)
            return []

    def _open_all(self, pid: int, path: str, info: ImageInfo) -> list[OpenFile]:
        found: list[OpenFile] = []
        with contextlib.suppress(OSError):  # of a process that is gone
            root = open_root(pid)
            try:
                path = _seen_by(pid, path)
                self._open_each(found, lambda name: open_below(root, name), self._names(info, path, beside=True))
            finally:
                os.close(root)
        self._open_each(found, open_regular, self._names(info, path, beside=False))
        return found

    def _names(self, info: ImageInfo, path: str, *, beside: bool) -> Iterator[tuple[str, bool]]:
        """Where the files may be, the surest first, and whether each has the name that the image gives.

        Names from a file, told by a process that has read it, lead nowhere but into the folders that are meant.
        """
        if _BUILD_ID.fullmatch(info.build_id):
            for folder in self._folders:
                yield f"{folder}/.build-id/{info.build_id[:2]}/{info.build_id[2:]}.debug", False
        if not info.debug_link or "/" in info.debug_link or info.debug_link in (".", "..") or not path.startswith("/"):
            return
        own = PurePosixPath(path).parent
        if beside:
            yield str(own / info.debug_link), True
            yield str(own / ".debug" / info.debug_link), True
        for folder in self._folders:
            yield str(folder / own.relative_to("/") / info.debug_link), True

    @staticmethod
    def _open_each(found: list[OpenFile], opener: Callable[[str], int], names: Iterable[tuple[str, bool]]) -> None:
        """Adds those that are there to ``found``; a file that is found in two ways is kept once for each."""
        for name, linked in names:
            if len(found) >= MOST_FILES - 1:
                return
            try:
                fd = opener(name)
            except OSError:
                continue  # nearly always it is not there, and what may not be opened cannot be used either
            file = OpenFile.of(fd, name, linked=linked)
            if any((other.key, other.linked) == (file.key, file.linked) for other in found):
                os.close(fd)
            else:
                found.append(file)


def _seen_by(pid: int, path: str) -> str:
    """A path as the process itself sees it, when its root is a directory of ours (chroot), below which we saw it."""
    root = str(Path(f"/proc/{pid}/root").readlink())
    return path.removeprefix(root) if root != "/" and path.startswith(root + "/") else path


def _close(files: Iterable[OpenFile]) -> None:
    for file in files:
        os.close(file.fd)
