"""Whether a detach has left every process as it was."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from contextlib import suppress

from coral.agent.attach import attached_sites
from coral.agent.collector import Collector
from coral.agent.readback import changed
from coral.procfs.process import ProcessGone

_READ_BACK_S = 1.0
_READ_AGAIN_S = 0.01


def left_behind(collector: Collector, others: Iterable[Collector], guarded: Collection[int]) -> dict[int, str]:
    """What is still changed in the text of its processes, in words, by process; empty when all is as it was. Blocking.

    Sites that other collectors probe too still have their breakpoints, and are no business of this one.
    """
    # By inode alone: overlay mounts that share a layer show one file under several devices.
    # Copied at once: the event loop goes on meanwhile.
    groups = [group for other in others for group in list(other.groups.values())]
    shared = {(group.key.inode, site.offset) for group in groups for site in group.plan.sites}
    # A child that this process has just forked (a worker, say) holds every link too until it execs, a moment later.
    deadline = time.monotonic() + _READ_BACK_S
    left = {}
    for tracked in list(collector.tracked.values()):
        pid, group = tracked.id.pid, tracked.group
        if group is None or pid in guarded:
            continue
        own = [site for site in attached_sites(collector, group) if (group.key.inode, site.offset) not in shared]
        with suppress(ProcessGone):
            sites = changed(pid, group.key, own)
            while sites and time.monotonic() < deadline:
                time.sleep(_READ_AGAIN_S)
                sites = changed(pid, group.key, sites)
            if sites:
                left[pid] = (
                    f"After the detach {len(sites)} sites of process {pid} do not have the bytes of the file: "
                    "another tracer probes them too, or the kernel did not restore them."
                )
    return left
