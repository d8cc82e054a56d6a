"""From a process and the name of a function to the image that has it, and how it is probed there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath

from coral.agent.debug_files import DebugFiles
from coral.agent.libraries import Found, is_called, the_one
from coral.elf.image import ImageInfo, ImageKey
from coral.elf.parser import Parser
from coral.model.errors import FailedPrecondition, NotFound
from coral.model.probe import split_function
from coral.model.site import FunctionPlan
from coral.procfs.maps import Module, modules, open_module
from coral.procfs.process import Process, ProcessGone
from coral.procfs.threads import memory_task


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionName:
    """A function as a user names it.

    Attributes:
        library: Base name, or the end of the path, of the library it must be in; empty for the program, then its libraries.
        name: The rest.
    """

    library: str
    name: str

    @classmethod
    def parse(cls, text: str) -> FunctionName:
        """Of ``[LIBRARY!]NAME``."""
        library, name = split_function(text)
        return cls(library=library, name=name)


class LibraryNotLoaded(NotFound):
    """The process has not mapped the library yet; it may still do so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where a process has the function.

    Attributes:
        fd: The image, open; the receiver closes it.
        key: Its identity on disk.
        info: What it is.
        plan: How the function is probed.
        shared: Whether it is a library, which processes of other services may map too.
        path: Of the image, as the process sees it.
    """

    fd: int
    key: ImageKey
    info: ImageInfo
    plan: FunctionPlan
    shared: bool
    path: str


class Resolver:
    """Finds functions in processes.

    Args:
        parser: Reads the images.
        debug_files: Finds what was stripped from them.
    """

    def __init__(self, parser: Parser, debug_files: DebugFiles | None = None) -> None:
        self._parser = parser
        self._debug_files = debug_files or DebugFiles()

    async def locate(self, process: Process, function: FunctionName) -> Located:
        """The image of ``process`` that has the function: the program itself, then the libraries it has mapped.

        Raises:
            NotFound: No image has it; the message gives the nearest names of the program.
            LibraryNotLoaded: It must be in a library that is not mapped.
            InvalidArgument: Several functions answer to the name, or several libraries have one.
            FailedPrecondition: It cannot be probed, with the reason.
        """
        pid = process.id.pid
        if not function.library:
            try:
                with _opened_program(process) as fd:
                    return await self._locate_in(pid, fd, process.executable, function.name, library="")
            except NotFound as error:
                missing = error
        else:
            missing = LibraryNotLoaded(
                f"{PurePath(process.executable).name} (pid {pid}) has not loaded {function.library}.",
                hint="Name the file as it stands in /proc/PID/maps, for example libc.so.6!malloc.",
            )
        found: list[Found[Located | FailedPrecondition]] = []
        try:
            for module in modules(pid):
                if not is_called(module.path, function.library) if function.library else _is_program(module, process):
                    continue
                try:
                    found.append(await self._locate_in_library(pid, module, function))
                except NotFound as error:
                    if function.library:
                        missing = error
                except FailedPrecondition:
                    if function.library:
                        raise
                    # A library that cannot be read hides nothing that another has under this name.
            if not found:
                raise missing
            where = f"{PurePath(process.executable).name} (pid {pid})"
            chosen = the_one(found, function.name, where).what
        except BaseException:
            _close(found)
            raise
        _close(each for each in found if each.what is not chosen)
        if isinstance(chosen, FailedPrecondition):
            raise chosen
        return chosen

    async def _locate_in_library(
        self, pid: int, module: Module, function: FunctionName
    ) -> Found[Located | FailedPrecondition]:
        """The function in one library; an error in its place says why it cannot be probed there.

        Raises:
            NotFound: The library does not have it.
            FailedPrecondition: The library cannot be read.
        """
        what: Located | FailedPrecondition
        name = PurePath(module.path).name
        try:
            with _opened_module(pid, module) as fd:
                advise = bool(function.library)
                what = await self._locate_in(pid, fd, module.path, function.name, library=name, advise=advise)
                exported = what.plan.exported
        except FailedPrecondition as error:
            if "reason" not in error.details:
                raise
            what, exported = error, "local" not in error.details
        return Found(path=module.path, exported=exported, deleted=module.deleted, what=what)

    async def _locate_in(self, pid: int, fd: int, path: str, name: str, *, library: str, advise: bool = True) -> Located:
        key = ImageKey.of_fd(fd)
        info = await self._parser.identify(fd, key, path)
        async with self._debug_files.beside(pid, path, info) as debug:
            plan = await self._parser.plan(fd, key, path, name, library=library, debug=debug, advise=advise)
        return Located(fd=os.dup(fd), key=key, info=info, plan=plan, shared=bool(library), path=path)


@contextmanager
def _opened_program(process: Process) -> Iterator[int]:
    # The magic link leads to the very file that runs, also when it was deleted, replaced or lies in another mount namespace.
    try:
        fd = os.open(f"/proc/{memory_task(process.id.pid)}/exe", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessGone):
        raise NotFound(f"Process {process.id.pid} ended.", hint="Try again.") from None
    except OSError as error:  # of a file system of a user's own, for one, which keeps root out (FUSE)
        raise FailedPrecondition(
            f"The program of process {process.id.pid} cannot be opened: {error.strerror}.",
            hint="The file system that it lies on keeps the agent out.",
        ) from None
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _opened_module(pid: int, module: Module) -> Iterator[int]:
    fd = open_module(pid, module.mappings[0])
    try:
        yield fd
    finally:
        os.close(fd)


def _close(found: Iterable[Found[Located | FailedPrecondition]]) -> None:
    for each in found:
        if isinstance(each.what, Located):
            os.close(each.what.fd)


def _is_program(module: Module, process: Process) -> bool:
    return module.path == process.executable
