"""What is set up around the daemons of a case: links between them, clocks and disks of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from faults.detour import Detour, detour_to
from faults.disks import Ext4Disk, SmallDisk, ext4_disk, small_disk
from faults.link import Link, link_to
from faults.preload import Preload
from faults.stack import FaultStack

_DISK_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """The ways between the daemons.

    Attributes:
        to_colony: By which the agent reports.
        to_agent: By which the colony asks, and reads events.
    """

    to_colony: Link
    to_agent: Link

    def both(self) -> tuple[Link, Link]:
        """Both ways."""
        return self.to_colony, self.to_agent


@contextmanager
def linked(stack: FaultStack) -> Iterator[Links]:
    """Each daemon reaches the other through a link that can be made bad."""
    with link_to(stack.colony) as to_colony, link_to(stack.agent) as to_agent:
        stack.colony_for_agent, stack.agent_for_colony = to_colony.address, to_agent.address
        yield Links(to_colony=to_colony, to_agent=to_agent)


@contextmanager
def linked_with_a_small_window(stack: FaultStack) -> Iterator[Links]:
    """As ``linked``, with an agent that keeps no more than a few seconds of events."""
    stack.agent_env["CORAL_AGENT__WINDOW_BYTES"] = str(1 << 20)
    with linked(stack) as links:
        yield links


@contextmanager
def with_a_detour(stack: FaultStack) -> Iterator[Detour]:
    """The colony reaches the agent through a proxy that may be careless with batches."""
    with detour_to(stack.agent) as detour:
        stack.agent_for_colony = detour.address
        yield detour


@dataclass(frozen=True, slots=True, kw_only=True)
class Preloads:
    """Clocks and disks of the daemons' own.

    Attributes:
        colony: Those of the colony.
        agent: Those of the agent, its workers included.
    """

    colony: Preload
    agent: Preload


@contextmanager
def preloaded(stack: FaultStack) -> Iterator[Preloads]:
    """Both daemons see clocks and disks that can be made to lie and to fail, each its own."""
    made = Preloads(
        colony=Preload(stack.state_dir / "colony-faults", stack.colony_state),
        agent=Preload(stack.state_dir / "agent-faults", stack.agent_state),
    )
    stack.colony_env |= made.colony.env
    stack.agent_env |= made.agent.env
    try:
        yield made
    finally:
        made.colony.close()
        made.agent.close()


@contextmanager
def on_a_small_disk(stack: FaultStack) -> Iterator[SmallDisk]:
    """The colony's state is on a disk that can be filled; it keeps no space free of its own accord."""
    _keep_everything(stack)
    with small_disk(_beside(stack), _DISK_BYTES) as disk:
        stack.colony_state = disk.folder / "colony"
        yield disk
        stack.stop()


@contextmanager
def with_a_floor_of_space(stack: FaultStack) -> Iterator[SmallDisk]:
    """Likewise, and of its free space the colony leaves 64 MiB alone."""
    with on_a_small_disk(stack) as disk:
        stack.colony_env["CORAL_COLONY__MIN_FREE_BYTES"] = str(64 << 20)
        yield disk


@contextmanager
def on_an_ext4_disk(stack: FaultStack) -> Iterator[Ext4Disk]:
    """The colony's state is on a disk that goes read-only when it fails."""
    _keep_everything(stack)
    with ext4_disk(_beside(stack), _DISK_BYTES) as disk:
        stack.colony_state = disk.folder / "colony"
        yield disk
        stack.stop()


def _beside(stack: FaultStack) -> Path:
    return stack.state_dir / "disk"


def _keep_everything(stack: FaultStack) -> None:
    """Has the colony neither stop storing events nor remove old ones to have space: such a disk has less than it wants."""
    stack.colony_env |= {"CORAL_COLONY__MIN_FREE_BYTES": "0", "CORAL_COLONY__KEEP_FREE_BYTES": "0"}
