"""What happens while releases change: one daemon is of an earlier release than the other, and is upgraded under a session.

The earlier release is a checkout of this repository, which ``CORAL_PREVIOUS`` names (``git worktree add FOLDER COMMIT`` makes
one); without it there are no such cases.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.cases import Scene, fault
from faults.checker import Leaves
from faults.stack import FaultStack

PREVIOUS = os.environ.get("CORAL_PREVIOUS", "")


def _of(stack: FaultStack, name: str) -> None:
    """Has a daemon run the earlier release, which may know no metrics."""
    env = stack.agent_env if name == "agent" else stack.colony_env
    env["PYTHONPATH"] = str(Path(PREVIOUS, "src").resolve(strict=True))
    stack.forgo_metrics(name)


@contextmanager
def with_the_previous_agent(stack: FaultStack) -> Iterator[None]:
    """The colony is upgraded already, its agent is not."""
    _of(stack, "agent")
    yield


@contextmanager
def with_the_previous_colony(stack: FaultStack) -> Iterator[None]:
    """The agent is upgraded already, its colony is not."""
    _of(stack, "colony")
    yield


def mixed(scene: Scene) -> None:
    """A session runs between two releases, and leaves nothing to be desired."""
    scene.wait_for_stored(8000)


def agent_upgraded(scene: Scene) -> None:
    """The agent is upgraded while sessions run: each goes on with a new collector, and says what nobody has counted."""
    scene.wait_for_stored(4000)
    assert scene.stack.agent_daemon is not None
    scene.stack.agent_daemon.stop()
    del scene.stack.agent_env["PYTHONPATH"]
    scene.stack.start_agent()
    scene.wait_for_stored(4000)


def colony_upgraded(scene: Scene) -> None:
    """The colony is upgraded while sessions run: it brings its files up to date, and goes on where they stand."""
    scene.wait_for_stored(4000)
    assert scene.stack.colony_daemon is not None
    scene.stack.colony_daemon.stop()
    del scene.stack.colony_env["PYTHONPATH"]
    scene.stack.start_colony()
    scene.wait_for_stored(4000)


if PREVIOUS:
    fault("earlier agent", setting=with_the_previous_agent, soak=False)(mixed)
    fault("earlier colony", setting=with_the_previous_colony, soak=False)(mixed)
    fault(
        "agent upgraded", setting=with_the_previous_agent, own_stack=True, restarts=True, soak=False, leaves=Leaves.UNKNOWN
    )(agent_upgraded)
    fault("colony upgraded", setting=with_the_previous_colony, own_stack=True, restarts=True, soak=False)(colony_upgraded)
