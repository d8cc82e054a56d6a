"""Processes that have loaded another file in the place of a probed library: a plugin that was replaced and loaded again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from coral.agent.collector import Tracked
from coral.model.errors import PermissionDenied
from coral.model.session import InstanceStatus
from coral.procfs.files import ProcessGone
from coral.procfs.maps import read_maps

_AT_ONCE = 100
"""Processes that are looked at in one go: 0.1 ms each."""


def reloaded(tracked: Sequence[Tracked], *, turn: int) -> list[Tracked]:
    """Processes whose probed library is gone while another file of its name is there.

    A library that is gone without another in its place stays probed: it may be loaded again. Blocking.

    Args:
        tracked: The processes of a collector.
        turn: Counts the calls; each looks at the next hundred.
    """
    candidates = [one for one in tracked if _in_library(one)]
    if not candidates:
        return []
    start = turn * _AT_ONCE % len(candidates)
    return [one for one in (candidates[start:] + candidates[:start])[:_AT_ONCE] if _reloaded(one)]


def _in_library(tracked: Tracked) -> bool:
    probed = tracked.group is not None and bool(tracked.group.plan.library)
    return probed and tracked.instance.status is InstanceStatus.ATTACHED


def _reloaded(tracked: Tracked) -> bool:
    group = tracked.group
    if group is None:
        return False
    try:
        mappings = [mapping for mapping in read_maps(tracked.id.pid) if mapping.executable and mapping.inode]
    except (ProcessGone, PermissionDenied):
        return False
    if any(mapping.inode == group.key.inode for mapping in mappings):
        return False
    return any(PurePath(mapping.path).name == group.plan.library for mapping in mappings)
