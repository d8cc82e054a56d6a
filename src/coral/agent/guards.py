"""Breakpoints that must outlast their session, because a debugger may have taken them for the program's code.

A debugger that sets a breakpoint on a probed instruction reads the kernel's ``int3`` there, and keeps it as what it will put
back. If the probe went first, the debugger would write that ``int3`` into code that nobody guards any more, and the program
would die of SIGTRAP at its next call. So where a process is under a debugger at the end of a session, a probe without effect
stays at its sites until the debugger has let go of it; then the kernel puts the original bytes back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coral.agent.readback import breakpoints
from coral.elf.image import ImageKey
from coral.kernel.engine import Engine
from coral.model.errors import CoralError
from coral.model.site import Site
from coral.procfs.files import ProcessGone
from coral.procfs.stat import read_stat
from coral.procfs.tracer import traced_processes, tracer_of

_WRITES_NO_CODE = frozenset({"strace"})
"""Tracers that set no breakpoints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Guard:
    pid: int
    tracer: int
    link_fd: int


class Guards:
    """The probes without effect of this agent. Blocking.

    Args:
        engine: The kernel layer.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._held: list[_Guard] = []

    def protect(self, image_fd: int, key: ImageKey, sites: Sequence[Site]) -> list[tuple[int, int]]:
        """Guards the sites in every process that is under a debugger; to be called before the session's links are closed.

        Args:
            image_fd: The image, open.
            key: Its identity.
            sites: Those that carry the session's breakpoints.

        Returns:
            The processes, each with its debugger.
        """
        guarded = []
        for pid, tracer in traced_processes():
            if not _sets_breakpoints(tracer):
                continue
            try:
                missing = breakpoints(pid, key, sites)
                if len(missing) < len(sites):
                    link_fd = self._engine.guard(f"/proc/self/fd/{image_fd}", [site.offset for site in sites], pid=pid)
                    self._held.append(_Guard(pid=pid, tracer=tracer, link_fd=link_fd))
                    guarded.append((pid, tracer))
            except (CoralError, OSError):
                continue  # it has ended, or its main thread has: there is nothing to guard, or no way to
        return guarded

    def release(self) -> None:
        """Takes the guards away where the debugger has gone."""
        self._close(guard for guard in list(self._held) if not _is_traced(guard))

    def close(self) -> None:
        """Takes all guards away."""
        self._close(list(self._held))

    def _close(self, guards: Iterable[_Guard]) -> None:
        for guard in guards:
            self._held.remove(guard)
            os.close(guard.link_fd)


def _sets_breakpoints(tracer: int) -> bool:
    try:
        return read_stat(tracer).comm not in _WRITES_NO_CODE
    except ProcessGone:
        return False


def _is_traced(guard: _Guard) -> bool:
    try:
        return tracer_of(guard.pid) == guard.tracer
    except ProcessGone:
        return False
