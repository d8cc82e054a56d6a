"""Runs cases: the scene is set, the fault happens, and every invariant is looked at."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from dataclasses import dataclass, field

import grpc

from faults import cases
from faults.cases import Case, Scene
from faults.checker import footprint_faults, link_faults
from faults.footprint import Footprint
from faults.stack import FaultStack, steady

_REST_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a case ended.

    Attributes:
        case: Its name.
        seconds: That it took.
        rates: Calls a second that the programs made.
        notes: Ledgers and figures.
        faults: What was wrong; empty for a pass.
        footprints: The daemons at rest afterwards.
    """

    case: str
    seconds: float
    rates: list[float]
    notes: list[str]
    faults: list[str]
    footprints: dict[str, Footprint] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """For people."""
        speed = ", ".join(f"{rate:.0f} calls/s" for rate in self.rates)
        head = f"{'FAILED' if self.faults else 'ok':6} {self.case} ({self.seconds:.1f} s{'; ' + speed if speed else ''})"
        taken = [f"  {name}: {after}" for name, after in self.footprints.items()]
        return [head, *(f"  {note}" for note in self.notes), *taken, *(f"  FAULT: {fault}" for fault in self.faults)]


def warm(stack: FaultStack) -> dict[str, Footprint]:
    """Has both daemons do once what they do in every case; returns what they take at rest after it."""
    verdict = play(stack, Case(name="warm-up", run=lambda scene: scene.wait_for_stored(4000), leaves=cases.Leaves.EXACT))
    if verdict.faults:
        raise RuntimeError("\n".join(["it does not even work without a fault:", *verdict.lines()]))
    return verdict.footprints


def play(stack: FaultStack, case: Case, *, seed: int = 0, before: dict[str, Footprint] | None = None) -> Verdict:
    """Runs one case.

    Args:
        stack: Running, at rest.
        case: Which.
        seed: Of what it draws.
        before: What the daemons took at rest; None when that is not to be judged.
    """
    began = time.monotonic()
    scene = Scene(stack=stack, random=random.Random(f"{seed}:{case.name}"))
    footprints: dict[str, Footprint] = {}
    with ExitStack() as exits:
        try:
            if not case.alone:
                scene.programs = [exits.enter_context(steady(kind, stack.state_dir)) for kind in case.kinds]
                cases.begin(scene, case)
            case.run(scene)
            if not case.alone:
                cases.end(scene, case)
        except (TimeoutError, EOFError, OSError, RuntimeError, AssertionError, grpc.RpcError) as error:
            scene.faults.append(f"{type(error).__name__}: {error}")
        programs = {str(program.program) for program in scene.programs}
        footprints, unrest = _at_rest(stack, before, programs)
        scene.faults += unrest
    return Verdict(
        case=case.name,
        seconds=time.monotonic() - began,
        rates=scene.rates,
        notes=scene.notes,
        faults=scene.faults,
        footprints=footprints,
    )


def _at_rest(
    stack: FaultStack, before: dict[str, Footprint] | None, programs: set[str]
) -> tuple[dict[str, Footprint], list[str]]:
    """Waits until nothing is left of a case; what is left after a while is a fault."""
    deadline = time.monotonic() + _REST_S
    while True:
        try:
            now = stack.footprints()
        except FileNotFoundError as error:
            return {}, [f"a daemon is gone: {error.filename}"]
        faults = link_faults(programs)
        for name, after in now.items():
            then = (before or {}).get(name)
            faults += footprint_faults(name, then, after) if then is not None else []
        if not faults or time.monotonic() > deadline:
            return now, faults
        time.sleep(0.2)
