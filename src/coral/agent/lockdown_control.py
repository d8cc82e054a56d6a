"""What ``coral agent lockdown`` does on a host: puts the lockdown in force, sees to it that it is, and lifts it."""

from __future__ import annotations

import os
import pwd
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from coral.agent.lockdown import Lockdown, LockdownFiles
from coral.model.errors import DeadlineExceeded, FailedPrecondition
from coral.procfs.process import ProcessGone, process_id

SIGN_S = 1.0
"""An agent that gave no sign by then is ended."""
DONE_S = 3.0
"""So is one that has not detached by then."""
_GONE_S = 5.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How the host stands.

    Attributes:
        lockdown: What is in force; None when nothing is.
        agent: ``running``, ``not running``, or ``ended`` when it had to be.
        sentence: The same for a person.
    """

    lockdown: Lockdown | None
    agent: str
    sentence: str

    def document(self) -> dict[str, Any]:
        """As ``-o json`` has it."""
        found = self.lockdown
        return {
            "locked": found is not None,
            "since_ns": found.since_ns if found else None,
            "by": found.by if found else None,
            "reason": found.reason if found else None,
            "agent": self.agent,
        }


def look(files: LockdownFiles) -> Report:
    """How the host stands now.

    Raises:
        FailedPrecondition: This user may not look.
    """
    _require_access(files)
    found = files.lockdown
    agent = "running" if _agent(files) is not None else "not running"
    state = f"Locked down {found}." if found is not None else "Not locked down."
    return Report(lockdown=found, agent=agent, sentence=f"{state} The agent is {agent}.")


def lock(files: LockdownFiles, reason: str) -> Report:
    """Locks the host down; when it returns, no probe of its agent is attached.

    Raises:
        FailedPrecondition: This user may not do it.
        DeadlineExceeded: The agent cannot even be ended; new attaches are refused all the same.
    """
    _require_access(files)
    wanted = files.lockdown or Lockdown(since_ns=time.time_ns(), by=_user(), reason=reason)
    try:
        files.lock(wanted)
    except OSError as error:
        raise _unusable(files, error) from None
    begun_s = time.monotonic()

    def detached() -> bool:
        answer = files.answer
        pid = _agent(files)
        return pid is None or (answer.get("pid"), answer.get("state"), answer.get("since_ns")) == (
            pid, "detached", wanted.since_ns,
        )  # fmt: skip

    def given_up() -> bool:
        waited_s = time.monotonic() - begun_s
        answer = files.answer
        sign = answer.get("state") == "detaching" and answer.get("since_ns") == wanted.since_ns
        return waited_s > (DONE_S if sign else SIGN_S)

    before = _agent(files)
    while not detached():
        if given_up():
            _end(files)
            sentence = "The agent did not answer and was ended; the kernel has taken its probes away with it."
            return Report(lockdown=wanted, agent="ended", sentence=f"Locked down {wanted}. {sentence}")
        time.sleep(_POLL_S)
    if before is None or _agent(files) is None:
        return Report(
            lockdown=wanted,
            agent="not running",
            sentence=f"Locked down {wanted}. No agent runs on {files.state_dir}; one that starts will attach nothing.",
        )
    return Report(
        lockdown=wanted, agent="running", sentence=f"Locked down {wanted}. Everything is detached; new probes are refused."
    )


def lift(files: LockdownFiles) -> Report:
    """Lifts the lockdown; when it returns, the agent attaches again if it runs.

    Raises:
        FailedPrecondition: This user may not do it.
        DeadlineExceeded: The agent does not take note of it.
    """
    _require_access(files)
    try:
        was = files.lift()
    except OSError as error:
        raise _unusable(files, error) from None
    pid = _agent(files)
    if pid is not None and not _until(lambda: files.answer.get("state") == "open" or _agent(files) != pid, DONE_S):
        raise DeadlineExceeded(
            f"The lockdown is lifted, but the agent (pid {pid}) has not taken note of it.", hint="Start the agent again."
        )
    state = "The lockdown is lifted." if was else "It was not locked down."
    agent = "running" if pid is not None else "not running"
    return Report(lockdown=None, agent=agent, sentence=f"{state} The agent is {agent}.")


def _require_access(files: LockdownFiles) -> None:
    folder = files.state_dir
    with suppress(FileNotFoundError):
        if os.geteuid() not in (0, folder.stat().st_uid):
            raise FailedPrecondition(
                f"{folder} belongs to another user, and so does its agent.", hint="Run it as root: sudo coral agent lockdown."
            )


def _unusable(files: LockdownFiles, error: OSError) -> FailedPrecondition:
    return FailedPrecondition(
        f"The state directory {files.state_dir} cannot be used: {error.strerror}.",
        hint="Run it as root, and name the agent's directory with --state-dir. To end the agent itself: kill -9 its pid.",
    )


def _user() -> str:
    """Who does it, as far as that is known: behind sudo, who called it."""
    with suppress(KeyError):
        return os.environ.get("SUDO_USER", "") or pwd.getpwuid(os.getuid()).pw_name
    return f"uid {os.getuid()}"


def _agent(files: LockdownFiles) -> int | None:
    """The pid of the agent that runs on the directory; None when none does."""
    running = files.running
    if running is None:
        return None
    pid, start_time_ns = running
    try:
        return pid if process_id(pid).start_time_ns == start_time_ns else None
    except ProcessGone:
        return None


def _end(files: LockdownFiles) -> None:
    """Ends the agent with SIGKILL, and waits until it is gone."""
    pid = _agent(files)
    if pid is None:
        return
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            if _agent(files) == pid:  # the handle is of the agent, and not of who got its number meanwhile
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
    if not _until(lambda: _agent(files) != pid, _GONE_S):
        raise DeadlineExceeded(
            f"The agent (pid {pid}) does not end: it hangs in the kernel.",
            hint="New probes are refused. If its probes have to go, the host has to be started again.",
        )


def _until(look: Callable[[], bool], within_s: float) -> bool:
    deadline_s = time.monotonic() + within_s
    while not look():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_POLL_S)
    return True
