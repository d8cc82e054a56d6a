"""What a probe costs on this host, measured with real probes on a process of the agent's own.

Under a probe an instruction is emulated by the kernel or stepped over in a copy, which takes a second trap: on some machines
several times as much. So both are measured, and what an exit adds to find its entry, each as the least of several rounds.
"""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog

from coral.agent import trap_target
from coral.kernel.engine import Engine
from coral.model.addresses import FileOffset
from coral.model.errors import CoralError, FailedPrecondition
from coral.model.inspection import TrapCost
from coral.model.probe import Mode, ProbeConfig, ProbeFilter
from coral.model.site import FunctionPlan, Method, Pairing, Site, SiteKind

_CALLS = 1000
_ROUNDS = 3
_LIMIT_S = 5.0
_LINE_BYTES = 64
_AGAIN_AFTER_S = 30.0
_FILTERED = ProbeFilter(min_duration_ns=60_000_000_000)
"""So that no event is written: the cost of writing one is a hundredth of a trap's."""
_RET = 2  # bytes from the entry of a function of ``trap_target`` to its RET

_log = structlog.get_logger(__name__)


class TrapCosts:
    """Measures once, when it is first asked; a failure is tried again after a while.

    Args:
        engine: The kernel layer.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._measuring = asyncio.Lock()
        self._cost: TrapCost | None = None
        self._failure: CoralError | None = None
        self._failed_at_s = 0.0

    @property
    def known(self) -> TrapCost | None:
        """What it measured; None when nobody has asked yet."""
        return self._cost

    async def cost(self) -> TrapCost:
        """What a hit costs; takes up to some 100 ms the first time, and 5 s at most.

        Raises:
            CoralError: It cannot be measured now.
        """
        async with self._measuring:
            if self._cost is not None:
                return self._cost
            if self._failure is not None and time.monotonic() - self._failed_at_s < _AGAIN_AFTER_S:
                raise self._failure
            try:
                self._cost = await asyncio.to_thread(_measure, self._engine)
            except CoralError as error:
                self._failure, self._failed_at_s = error, time.monotonic()
                raise
            _log.info(
                "measured what a probe costs",
                emulated_ns=self._cost.emulated_ns,
                stepped_ns=self._cost.stepped_ns,
                pairing_ns=self._cost.pairing_ns,
            )
            return self._cost


class _Target:
    """The process, and the time it takes to call a function of its code."""

    def __init__(self, process: subprocess.Popen[bytes], until_s: float) -> None:
        self.pid = process.pid
        if process.stdin is None or process.stdout is None:
            raise ValueError("the process needs pipes")
        self._questions = process.stdin
        self._answers = process.stdout.fileno()
        self._until_s = until_s
        self._ready = select.poll()
        self._ready.register(self._answers, select.POLLIN)
        self._line()

    def call_ns(self, offset: int) -> float:
        """The CPU time of a call, the least of several rounds."""
        rounds = []
        for _ in range(_ROUNDS):
            self._questions.write(f"{offset} {_CALLS}\n".encode())
            self._questions.flush()
            rounds.append(int(self._line()) / _CALLS)
        return min(rounds)

    def _line(self) -> bytes:
        if not self._ready.poll(max(0.0, self._until_s - time.monotonic()) * 1000):
            raise FailedPrecondition(
                f"The process that is probed to measure costs did not answer within {_LIMIT_S:g} s.",
                hint="The host is very busy: try again later.",
            )
        line = os.read(self._answers, _LINE_BYTES)
        if not line:
            raise FailedPrecondition(
                "The process that is probed to measure costs ended.", hint="Is code from a memfd forbidden on this host?"
            )
        return line


def _measure(engine: Engine) -> TrapCost:
    until_s = time.monotonic() + _LIMIT_S
    fd = os.memfd_create("coral-trap-cost", os.MFD_CLOEXEC)
    try:
        os.write(fd, trap_target.code())
        with subprocess.Popen(
            [sys.executable, "-P", "-m", trap_target.__name__, str(fd)],
            pass_fds=(fd,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                return _measure_with(engine, _Target(process, until_s), fd)
            finally:
                process.kill()
    except OSError as error:
        raise FailedPrecondition(f"What a probe costs cannot be measured: {error.strerror or error}.") from error
    finally:
        os.close(fd)


def _measure_with(engine: Engine, target: _Target, fd: int) -> TrapCost:
    emulated_free, stepped_free = target.call_ns(trap_target.EMULATED), target.call_ns(trap_target.STEPPED)
    with _probed(engine, target, fd, Mode.COUNT, [_site(trap_target.EMULATED, SiteKind.ENTRY)]):
        emulated = target.call_ns(trap_target.EMULATED) - emulated_free
    with _probed(engine, target, fd, Mode.COUNT, [_site(trap_target.STEPPED, SiteKind.ENTRY)]):
        stepped = target.call_ns(trap_target.STEPPED) - stepped_free
    pair = [_site(trap_target.EMULATED, SiteKind.ENTRY), _site(trap_target.EMULATED + _RET, SiteKind.RETURN)]
    with _probed(engine, target, fd, Mode.EVENTS, pair):
        both = target.call_ns(trap_target.EMULATED) - emulated_free
    return TrapCost(
        emulated_ns=round(max(0.0, emulated)),
        stepped_ns=round(max(0.0, stepped)),
        pairing_ns=round(max(0.0, both - emulated - stepped)),
    )


@contextmanager
def _probed(engine: Engine, target: _Target, fd: int, mode: Mode, sites: Sequence[Site]) -> Iterator[None]:
    """Probes the target at ``sites`` for as long as the context lasts."""
    plan = FunctionPlan(
        name="trap_target",
        language="c",
        pairing=Pairing.STACK_POINTER,
        method=Method.RET_SITES,
        reason="",
        sites=tuple(sites),
    )
    slot = engine.acquire_slot(ProbeConfig(mode=mode), _FILTERED)
    try:
        engine.add_member(slot, target.pid)
        attachment = engine.attach(slot, f"/proc/self/fd/{fd}", plan, first_site=0, mode=mode, pid=target.pid)
        try:
            yield
        finally:
            engine.begin_detach(slot)
            attachment.detach()
    finally:
        engine.release_slot(slot)


def _site(offset: int, kind: SiteKind) -> Site:
    return Site(offset=FileOffset(offset), kind=kind, reason="of the measurement")
