"""The distinct images that the processes of a service run, and access to each."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import PurePath

from coral.agent.debug_files import DebugFiles
from coral.agent.libraries import is_called
from coral.agent.policy import LocalPolicy, names_of
from coral.agent.processes import Processes
from coral.elf.image import ImageInfo, ImageKey, OpenFile
from coral.elf.parser import Parser
from coral.model.errors import CoralError, FailedPrecondition, NotFound, PermissionDenied
from coral.procfs.maps import modules, open_module
from coral.procfs.process import Process, ProcessGone


@dataclass(slots=True, kw_only=True)
class ServiceImage:
    """One image that processes of a service run.

    Attributes:
        fd: It, open.
        key: Its identity on disk.
        path: As the first of the processes sees it.
        library: Base name, when it is not the program itself.
        pids: The processes.
        info: What it says about itself; None when that is not known.
        error: Why it cannot be read; None when it can, or when that was not tried.
        deleted: Whether its file has been unlinked or replaced since it was loaded; of a library.
    """

    fd: int
    key: ImageKey
    path: str
    library: str
    pids: list[int] = field(default_factory=list)
    info: ImageInfo | None = None
    error: CoralError | None = None
    deleted: bool = False


class ServiceImages:
    """Finds images.

    Args:
        parser: Reads them.
        processes: Of this host.
        debug_files: Finds what was stripped from them.
        policy: What may not be looked into here.
    """

    def __init__(
        self, parser: Parser, processes: Processes, debug_files: DebugFiles, policy: LocalPolicy | None = None
    ) -> None:
        self._parser = parser
        self._processes = processes
        self._debug_files = debug_files
        self._policy = policy or LocalPolicy()

    @asynccontextmanager
    async def of_service(
        self, service: str, *, library: str = "", all_libraries: bool = False, function: str = ""
    ) -> AsyncIterator[list[ServiceImage]]:
        """The images of the live processes of a service by file, open for as long as the context lasts, not read yet.

        Programs come before libraries, and those that most processes run before others.

        Args:
            service: Its name.
            library: Base name: only the libraries of that name, else the programs.
            all_libraries: The programs and every library that they have loaded.
            function: What is asked about; empty when that is no function.

        Raises:
            NotFound: No process of it runs, or none has loaded the library.
            PermissionDenied: The policy of this host denies all of them.
        """
        running = await self._allowed(service, names_of(function) if function else ())
        found = await asyncio.to_thread(_collect, running, library, all_libraries)
        try:
            if not found:
                raise NotFound(
                    f"No process of {service} has loaded {library}." if library else f"All processes of {service} ended.",
                    hint="Name the file as it stands in /proc/PID/maps, for example libc.so.6." if library else "Try again.",
                )
            yield found
        finally:
            for image in found:
                os.close(image.fd)

    async def identified(self, found: Sequence[ServiceImage]) -> list[ServiceImage]:
        """The same with what they say about themselves, one of each build; those that cannot be read say why."""
        for image in found:
            try:
                await self.identify(image)
            except CoralError as error:
                image.error = error
        return merged(found)

    async def identify(self, image: ServiceImage) -> ImageInfo:
        """What an image says about itself.

        Raises:
            CoralError: It cannot be read.
        """
        if image.info is None:
            image.info = await self._parser.identify(image.fd, image.key, image.path)
        return image.info

    async def check_found(self, service: str, image: ServiceImage, names: Sequence[str]) -> None:
        """Passes unless the policy of this host denies a function that was found, by all of its names.

        Args:
            service: Whose.
            image: Where it was found.
            names: What it is called.

        Raises:
            PermissionDenied: It is denied in each process that runs the image.
        """
        running = [entry.process for entry in self._processes.known_instances(service) if entry.process.id.pid in image.pids]
        await self._undenied(running, service, names)

    async def _allowed(self, service: str, functions: Sequence[str]) -> list[Process]:
        """The live processes of a service that may be looked into.

        Raises:
            NotFound: There is none.
            PermissionDenied: There is none but such as may not.
        """
        entries = self._processes.known_instances(service) or await self._processes.instances(service)
        if not entries:
            raise self._processes.no_service(service)
        return await self._undenied([entry.process for entry in entries], service, functions)

    async def _undenied(self, processes: Sequence[Process], service: str, functions: Sequence[str]) -> list[Process]:
        allowed, denied = [], None
        for process in processes:
            try:
                await asyncio.to_thread(self._policy.check_process, process, service, functions)
                allowed.append(process)
            except PermissionDenied as error:
                denied = error
        if denied is not None and not allowed:
            raise denied
        return allowed

    @asynccontextmanager
    async def files(self, image: ServiceImage) -> AsyncIterator[list[OpenFile]]:
        """An image and the files that may hold its symbols.

        Raises:
            CoralError: It cannot be read.
        """
        info = await self.identify(image)
        async with self._debug_files.beside(image.pids[0], image.path, info) as debug:
            yield [OpenFile(fd=image.fd, key=image.key, path=image.path), *debug]


def _collect(running: Sequence[Process], library: str, all_libraries: bool) -> list[ServiceImage]:
    """The images by file, each opened once; blocking."""
    found: dict[ImageKey, ServiceImage] = {}
    for process in running:
        pid = process.id.pid
        with suppress(OSError, ProcessGone, PermissionDenied):  # gone, or out of reach
            own = -1
            if not library:
                own = _add(found, os.open(f"/proc/{pid}/exe", os.O_RDONLY | os.O_CLOEXEC), process.executable, "", pid)
            if library or all_libraries:
                _add_libraries(found, pid, library, without_inode=own)
    return sorted(found.values(), key=lambda image: (image.library != "", -len(image.pids), image.path))


def _add_libraries(found: dict[ImageKey, ServiceImage], pid: int, library: str, *, without_inode: int) -> None:
    for module in modules(pid):
        name = PurePath(module.path).name
        if module.inode != without_inode and (not library or is_called(module.path, library)):
            with suppress(FailedPrecondition):  # what cannot be opened is not told from what is not loaded
                _add(found, open_module(pid, module.mappings[0]), module.path, name, pid, deleted=module.deleted)


def _add(found: dict[ImageKey, ServiceImage], fd: int, path: str, library: str, pid: int, *, deleted: bool = False) -> int:
    """Takes an open file over; returns its inode."""
    key = ImageKey.of_fd(fd)
    if key in found:
        os.close(fd)
    else:
        found[key] = ServiceImage(fd=fd, key=key, path=path, library=library, deleted=deleted)
    found[key].pids.append(pid)
    return key.inode


def merged(images: Iterable[ServiceImage]) -> list[ServiceImage]:
    """One of each content: copies of one build in several files are one image. One with symbols stands for those without."""
    by_id: dict[str, ServiceImage] = {}
    for image in images:
        name = image.info.image_id if image.info is not None else f"unreadable:{image.path}"
        known = by_id.get(name)
        if known is None:
            by_id[name] = image
        else:
            better, other = (image, known) if _stripped(known) and not _stripped(image) else (known, image)
            better.pids += other.pids
            by_id[name] = better
    return sorted(by_id.values(), key=lambda image: (image.library != "", -len(image.pids), image.path))


def _stripped(image: ServiceImage) -> bool:
    return image.info is not None and image.info.stripped
