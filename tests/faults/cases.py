"""What a case is, and the list of them: a name, what happens, what that may leave.

A case of the usual kind only says what happens, to a scene on which programs make their calls under sessions::

    @fault("kill -9 colony", leaves=Leaves.EXACT)
    def kill_colony(scene: Scene) -> None:
        scene.stack.kill_colony()
        scene.stack.start_colony()

What is no such story (``alone=True``) gets a scene without programs, and says itself what is checked (``scene.check``).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import grpc
from support import rpc

from faults.checker import Leaves, Truth, identities, session_faults, text_faults, truth_faults
from faults.stack import FaultStack, Steady

CASES: dict[str, Case] = {}
Setting = Callable[[FaultStack], AbstractContextManager[Any]]
_WAIT_S = 60.0


@dataclass(slots=True, kw_only=True)
class Scene:
    """One run of one case.

    Attributes:
        stack: Colony and agent.
        random: What a case draws from, so that a seed gives it again.
        programs: Those that make calls.
        sessions: Their sessions, by service.
        faults: What was found to be wrong, as sentences.
        notes: Figures worth printing.
        rates: Calls a second that the programs made.
    """

    stack: FaultStack
    random: random.Random
    programs: list[Steady] = field(default_factory=list)
    sessions: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def attach(self, program: Steady, *, seconds: float = 120, **fields: Any) -> str:
        """Begins a session over a program; returns its id."""
        answer = rpc.attach(self.stack.colony, program.service, program.function, seconds, **fields)
        self.sessions[program.service] = answer.session_id
        return str(answer.session_id)

    def session(self, session_id: str) -> Any:
        """A session as the colony lists it."""
        (found,) = rpc.sessions(self.stack.colony, session_id=session_id)
        return found

    def wait_for_stored(self, more: int = 1, timeout_s: float = _WAIT_S) -> None:
        """Waits until each session has ``more`` stored events than now."""
        goals = {one: self._stored(one) + more for one in self.sessions.values()}
        deadline = time.monotonic() + timeout_s
        for session_id, goal in goals.items():
            while (reached := self._stored(session_id)) < goal:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"session {session_id} has {reached} events after {timeout_s} s, not {goal}")
                time.sleep(0.05)

    def check(self, session_id: str, leaves: Leaves, truth: Truth | None = None) -> dict[str, Any]:
        """Judges a session that has ended, by its document, its rows and what its program counted; returns the document."""
        document = self.stack.cli.session(session_id)
        rows = self.stack.cli.query(identities(session_id))
        found = session_faults(document, rows, leaves)
        if truth is not None:
            found += truth_faults(document, truth, leaves)
        self.faults += [f"session {session_id}: {fault}" for fault in found]
        return document

    def expect(self, truth: bool, otherwise: str) -> None:
        """Notes a fault unless something is so."""
        if not truth:
            self.faults.append(otherwise)

    def _stored(self, session_id: str) -> int:
        try:
            return int(self.session(session_id).ledger.stored)
        except grpc.RpcError:
            return -1  # the colony is not back yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of the fault matrix.

    Attributes:
        name: By which it is chosen.
        run: What happens.
        leaves: What that may leave in the ledgers.
        kinds: The programs on the scene: ``c``, ``go``.
        alone: Whether it makes its own programs and sessions.
        own_stack: Whether it needs daemons of its own, and leaves them in no state for another.
        restarts: Whether a daemon is started anew in it.
        soak: Whether it may be drawn in a soak.
        seconds: Deadline of the sessions.
        setting: Where its daemons are set up before they start: links, disks, clocks of their own; what it yields is
            ``scene.stack.setting``. Cases of one setting share their daemons, unless one has ``own_stack``.
    """

    name: str
    run: Callable[[Scene], None]
    leaves: Leaves
    kinds: tuple[str, ...] = ("c", "go")
    alone: bool = False
    own_stack: bool = False
    restarts: bool = False
    soak: bool = True
    seconds: float = 120
    setting: Setting | None = None


def fault(
    name: str,
    *,
    leaves: Leaves = Leaves.EXACT,
    kinds: tuple[str, ...] = ("c", "go"),
    alone: bool = False,
    own_stack: bool = False,
    restarts: bool = False,
    soak: bool = True,
    seconds: float = 120,
    setting: Setting | None = None,
) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    """Makes a function a case; the arguments are those of ``Case``."""

    def register(run: Callable[[Scene], None]) -> Callable[[Scene], None]:
        if name in CASES:
            raise ValueError(f"there are two cases called {name!r}")
        CASES[name] = Case(
            name=name, run=run, leaves=leaves, kinds=kinds, alone=alone, own_stack=own_stack, restarts=restarts, soak=soak,
            seconds=seconds, setting=setting,
        )  # fmt: skip
        return run

    return register


def begin(scene: Scene, case: Case) -> None:
    """Attaches to every program, and lets them begin."""
    for program in scene.programs:
        session_id = scene.attach(program, seconds=case.seconds)
        rpc.wait_for_session(scene.stack.colony, session_id=session_id, status="active")
    for program in scene.programs:
        program.go()
    scene.wait_for_stored()


def end(scene: Scene, case: Case) -> None:
    """Lets the programs end their calls, detaches, and judges."""
    for program in scene.programs:
        if program.alive and not program.stopped:
            scene.rates.append(program.stop())
    for program in scene.programs:
        session_id = scene.sessions[program.service]
        if scene.session(session_id).status in ("pending", "active"):
            scene.stack.cli.run("debug", "session", "stop", session_id)
        wait_for_end(scene, session_id)
    for program in scene.programs:
        calls, returned, wrong = program.counted()
        scene.expect(wrong == 0, f"{program.function} gave {wrong} wrong results")
        unsure = 0 if program.alive else program.threads
        truth = Truth(calls=calls, returned=returned, rate=program.rate, unsure=unsure)
        document = scene.check(scene.sessions[program.service], case.leaves, truth)
        scene.notes.append(brief(program.function, document, calls))
    scene.faults += text_faults(program.pid for program in scene.programs if program.alive)


def wait_for_end(scene: Scene, session_id: str, timeout_s: float = _WAIT_S) -> None:
    """Waits until a session has ended; notes a fault when it does not."""
    deadline = time.monotonic() + timeout_s
    while (status := scene.session(session_id).status) in ("pending", "active"):
        if time.monotonic() > deadline:
            scene.faults.append(f"session {session_id} is {status} {timeout_s} s after its end")
            return
        time.sleep(0.1)


def brief(name: str, document: dict[str, Any], calls: int) -> str:
    """A session's ledger in a line: what is not 0."""
    ledger = document["ledger"]
    shown = {key: value for key, value in ledger.items() if isinstance(value, int) and not isinstance(value, bool) and value}
    unknown = len(ledger["unknown_intervals"])
    text = ", ".join(f"{key} {value}" for key, value in shown.items())
    return f"{name} {document['status']}: {calls} calls; {text}; balanced {ledger['balanced']}, {unknown} unknown"


def within(seconds: float, what: Callable[[], bool]) -> bool:
    """Waits until something is so; returns whether it came to be."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
