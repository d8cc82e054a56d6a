"""The kill switch of a host: everything is detached, and nothing attached again, until it is lifted.

It is a file in the agent's state directory, so that it needs no network, no colony and no credential but that of root on the
host, and is still there when the agent starts anew. A thread of its own looks for it ten times a second: it does not need the
agent's event loop, and detaches by itself when that does not answer. Who cannot wait for the agent at all ends it: the kernel
takes its probes away with it (see ``lockdown_command``).
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from coral.kernel.engine import Engine
from coral.model.errors import CoralError, FailedPrecondition, NotFound
from coral.model.text import printable
from coral.procfs.process import process_id
from coral.trust.secret_files import read_secret, write_secret

LOOK_S = 0.1
ORDERLY_S = 0.4
"""How long the event loop has to end its collectors with their last counts, before their links are closed under them."""
LIFT = "Lift it on that host, as root: coral agent lockdown --off."
_STATE = "lockdown"
_ANSWER = "lockdown.answer"
_RUNNING = "agent.running"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lockdown:
    """Why a host is locked down.

    Attributes:
        since_ns: Since when, wall clock.
        by: The user who did it.
        reason: What they said; may be empty.
    """

    since_ns: int
    by: str
    reason: str

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return f"since {since} by {printable(self.by)}" + (f": {printable(self.reason)}" if self.reason else "")


class LockdownFiles:
    """What command and agent tell each other, in the agent's state directory.

    Args:
        state_dir: That directory.
    """

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir

    @property
    def lockdown(self) -> Lockdown | None:
        """The lockdown that is in force; None when there is none. What cannot be read counts as one."""
        path = self.state_dir / _STATE
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            return _unreadable(f"{path}: {error.strerror}")
        try:
            found = json.loads(read_secret(path))
            return Lockdown(since_ns=int(found["since_ns"]), by=str(found["by"])[:200], reason=str(found["reason"])[:200])
        except NotFound:
            return None
        except (CoralError, ValueError, KeyError, TypeError, RecursionError):
            return _unreadable(f"{path} is damaged")

    def lock(self, lockdown: Lockdown) -> None:
        """Puts a lockdown in force.

        Raises:
            OSError: It cannot be written.
        """
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_secret(self.state_dir / _STATE, json.dumps(asdict(lockdown)).encode())

    def lift(self) -> bool:
        """Ends the lockdown; returns whether there was one.

        Raises:
            OSError: It cannot be removed.
        """
        try:
            (self.state_dir / _STATE).unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    @property
    def answer(self) -> Mapping[str, Any]:
        """What the agent last said; empty when it said nothing."""
        return self._read(_ANSWER)

    def say(self, **facts: object) -> None:
        """What the agent says: that it detaches, that it has, that it is ready for attaches."""
        write_secret(self.state_dir / _ANSWER, json.dumps({"pid": os.getpid(), **facts}).encode())

    @property
    def running(self) -> tuple[int, int] | None:
        """Pid and start (as in /proc/PID/stat, ns) of the agent that last started on this directory; it may be gone."""
        found = self._read(_RUNNING)
        try:
            return int(found["pid"]), int(found["start_time_ns"])
        except (KeyError, ValueError, TypeError):
            return None

    def note_running(self) -> None:
        """Says that this process is the agent.

        Raises:
            OSError: It cannot be written.
        """
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        mine = process_id(os.getpid())
        write_secret(self.state_dir / _RUNNING, json.dumps({"pid": mine.pid, "start_time_ns": mine.start_time_ns}).encode())

    def _read(self, name: str) -> Mapping[str, Any]:
        try:
            found = json.loads(read_secret(self.state_dir / name))
        except (CoralError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


class Switch:
    """The agent's side: looks for the lockdown, and does it.

    Args:
        files: Where it is looked for.
        engine: The kernel layer.
    """

    def __init__(self, files: LockdownFiles, engine: Engine) -> None:
        self._files = files
        self._engine = engine
        self._stopped = threading.Event()
        self._orderly = threading.Event()
        self.lockdown: Lockdown | None = None

    @property
    def text(self) -> str:
        """Since when and why the host is locked down; empty when it is not."""
        return str(self.lockdown) if self.lockdown is not None else ""

    def check(self, agent_id: str) -> None:
        """Passes unless the host is locked down.

        Raises:
            FailedPrecondition: It is.
        """
        if self.lockdown is not None:
            raise FailedPrecondition(f"Agent {agent_id} is locked down {self.lockdown}: it attaches nothing.", hint=LIFT)

    async def run(self, detach: Callable[[], Any], changed: Callable[[], None]) -> None:
        """Watches until cancelled.

        Args:
            detach: A coroutine function that ends all collectors, and returns once nothing is attached.
            changed: Called when a lockdown begins or ends.
        """
        loop = asyncio.get_running_loop()

        async def orderly() -> None:
            changed()
            await detach()
            self._orderly.set()

        def begin() -> None:
            loop.call_soon_threadsafe(lambda: tasks.add(loop.create_task(orderly())))

        tasks: set[asyncio.Task[None]] = set()
        thread = threading.Thread(
            target=self._watch,
            args=(begin, lambda: loop.call_soon_threadsafe(changed)),
            name="lockdown",
            daemon=True,  # it must not keep alive what it is there to end
        )
        thread.start()
        try:
            await asyncio.Event().wait()
        finally:
            self._stopped.set()
            for task in tasks:
                task.cancel()
            await asyncio.to_thread(thread.join)

    def look(self) -> None:
        """Takes note of a lockdown from before, and says which process the agent is. It must not have attached anything yet.

        Raises:
            FailedPrecondition: The state directory cannot be written.
        """
        try:
            self._files.note_running()
        except OSError as error:
            raise FailedPrecondition(
                f"The state directory {self._files.state_dir} cannot be used: {error.strerror}.",
                hint="Choose another with --state-dir.",
            ) from None
        self.lockdown = self._files.lockdown
        self._engine.forbid(self._forbidden())

    def _watch(self, begin: Callable[[], None], lifted: Callable[[], None]) -> None:
        said: Lockdown | None = None
        self._say("open", said)
        while not self._stopped.is_set():
            found = self._files.lockdown
            if found != said:
                self.lockdown = found
                self._engine.forbid(self._forbidden())
                if found is None:
                    _log.warning("the lockdown was lifted: probes are attached again")
                    lifted()
                else:
                    _log.warning("locked down: everything is detached, and nothing attached", lockdown=str(found))
                    self._say("detaching", found)
                    self._orderly.clear()
                    begin()
                    self._orderly.wait(ORDERLY_S)
                    forced = self._engine.detach_all()
                    if not self._orderly.is_set() and forced:
                        _log.error("the event loop did not detach in time; its links were closed under it", links=forced)
                said = found
                self._say("open" if found is None else "detached", found)
            self._stopped.wait(LOOK_S)

    def _say(self, state: str, lockdown: Lockdown | None) -> None:
        """Answers the command. When that cannot be written, the command ends the agent, which is right as well."""
        try:
            self._files.say(state=state, since_ns=lockdown.since_ns if lockdown is not None else 0)
        except OSError as error:
            _log.error("cannot answer about the lockdown", state=state, reason=str(error))

    def _forbidden(self) -> str:
        return f"This host is locked down {self.lockdown}: nothing is attached." if self.lockdown is not None else ""


def _unreadable(what: str) -> Lockdown:
    return Lockdown(since_ns=0, by="nobody who is known", reason=f"{what}; what cannot be read counts as a lockdown")
