"""What happens on the way between versions and places: batches take a detour, the colony moves, its files are damaged."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from support.stack import free_port
from support.text import changed_text

from faults.cases import Scene, fault
from faults.checker import Leaves
from faults.detour import Detour
from faults.settings import Links, linked, with_a_detour
from faults.stack import steady


@fault("batches twice", setting=with_a_detour)
def twice(scene: Scene) -> None:
    """Every second batch is delivered a second time: each event is stored once."""
    _careless(scene, twice=0.5, swapped=0)


@fault("batches out of order", leaves=Leaves.LOSS, setting=with_a_detour)
def out_of_order(scene: Scene) -> None:
    """Some batches come after the one that follows, and some twice: what cannot be put in order is counted."""
    _careless(scene, twice=0.2, swapped=0.2)


def _careless(scene: Scene, *, twice: float, swapped: float) -> None:
    detour = scene.stack.setting
    assert isinstance(detour, Detour)
    before = detour.done
    detour.twice, detour.swapped = twice, swapped
    scene.wait_for_stored(16_000)
    detour.twice = detour.swapped = 0
    scene.wait_for_stored(1000)
    scene.notes.append(f"{detour.done - before} batches delivered again, or late")
    scene.expect(detour.done > before, "no batch took a detour")


@fault("colony moved", setting=linked, restarts=True)
def moved(scene: Scene) -> None:
    """The colony's files are taken elsewhere, and it is started there: its agents find it by the name that they have."""
    links, stack = scene.stack.setting, scene.stack
    assert isinstance(links, Links) and stack.colony_daemon is not None
    scene.wait_for_stored(1000)
    stack.colony_daemon.stop()
    elsewhere = stack.state_dir / f"moved-{time.monotonic_ns()}"
    shutil.copytree(stack.colony_state, elsewhere)
    shutil.rmtree(stack.colony_state)
    stack.colony_state, stack.colony = elsewhere, f"127.0.0.1:{free_port()}"
    stack.cli.colony = stack.colony
    links.to_colony.lead_to(stack.colony)
    stack.start_colony()
    scene.wait_for_stored(1000)


@fault("events file damaged", leaves=Leaves.LOSS, restarts=True)
def events_damaged(scene: Scene) -> None:
    """The colony dies, and finds its events file damaged: it is set aside, and what the agents still have is stored anew."""
    aside = _damaged(scene, "events.duckdb")
    scene.stack.start_colony()
    _set_aside(scene, aside)
    scene.wait_for_stored(1000)


@fault("events file half written", leaves=Leaves.LOSS, restarts=True)
def events_half_written(scene: Scene) -> None:
    """The colony dies, and its events file has lost its second half: likewise."""
    aside = _damaged(scene, "events.duckdb", cut=True)
    scene.stack.start_colony()
    _set_aside(scene, aside)
    scene.wait_for_stored(1000)


@fault("control file damaged", alone=True, own_stack=True, leaves=Leaves.UNKNOWN, restarts=True, soak=False)
def control_damaged(scene: Scene) -> None:
    """The colony finds its control file damaged: it begins anew, and has what ran on its agents detached."""
    with steady("c", scene.stack.state_dir) as program:
        scene.programs = [program]
        scene.attach(program)
        program.go()
        aside = _damaged(scene, "control.duckdb")
        scene.stack.start_colony()
        _set_aside(scene, aside)
        began = time.monotonic()
        while changed_text(program.pid) and time.monotonic() < began + 20:
            time.sleep(0.05)
        scene.expect(not changed_text(program.pid), "probes of a session that nobody knows stay")
        scene.notes.append(f"detached {time.monotonic() - began:.1f} s after the colony was back")
        verified = scene.stack.cli.run("audit", "verify")
        scene.notes.append(f"audit verify exits {verified.exit_code}: {verified.stdout.strip()[:300]}")
        session_id = scene.attach(program)
        scene.wait_for_stored(1000)
        document = scene.stack.cli.stop(session_id)
        scene.expect(document["ledger"]["balanced"] is True, f"a session after it: {document['ledger']}")
        scene.rates.append(program.stop())


def _damaged(scene: Scene, name: str, *, cut: bool = False) -> Path:
    """Kills the colony and damages one of its files; returns the folder where it will be set aside."""
    scene.wait_for_stored(4000)
    scene.stack.kill_colony()
    file = scene.stack.colony_state / name
    size = file.stat().st_size
    with file.open("r+b") as damaged:
        if cut:
            damaged.truncate(size // 2)
        else:
            # Both copies of DuckDB's header, which is behind the first 4 KiB: one is always whole after a crash.
            damaged.seek(4096)
            damaged.write(scene.random.randbytes(8192))
    return file


def _set_aside(scene: Scene, file: Path) -> None:
    kept = [each.name for each in file.parent.iterdir() if each.name.startswith(file.name) and ".broken-" in each.name]
    scene.expect(len(kept) >= 1, f"{file.name} was not set aside: {sorted(each.name for each in file.parent.iterdir())}")
    scene.notes.append(f"set aside as {', '.join(kept)}")
