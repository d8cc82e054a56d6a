"""Bringing processes into a collector: resolve, make members, attach, read back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from weakref import WeakSet

from coral.agent.clock import boot_ns
from coral.agent.collector import Collector, Group, Tracked
from coral.agent.leases import Leases
from coral.agent.naming import NotAuthorised, check_authorised
from coral.agent.policy import LocalPolicy, names_of
from coral.agent.processes import Processes
from coral.agent.readback import breakpoints, out_of_reach, patched, refuse_debugged, refuse_patched
from coral.agent.resolve import FunctionName, LibraryNotLoaded, Located, Resolver
from coral.elf.image import ImageKey
from coral.kernel.engine import Attachment, Engine
from coral.model.addresses import FileOffset
from coral.model.errors import CoralError, FailedPrecondition, NotFound, PermissionDenied
from coral.model.probe import Mode
from coral.model.session import Instance, InstanceStatus
from coral.model.site import Site
from coral.procfs.maps import maps_privately
from coral.procfs.process import Process, ProcessGone, ProcessId
from coral.procfs.stat import read_stat
from coral.procfs.table import Entry
from coral.procfs.threads import memory_task


class Attacher:
    """Attaches collectors to processes.

    Args:
        engine: The kernel layer.
        resolver: Finds the function in a process.
        processes: Who else runs on this host.
        policy: What may not be probed here.
    """

    def __init__(self, engine: Engine, resolver: Resolver, processes: Processes, policy: LocalPolicy | None = None) -> None:
        self._engine = engine
        self._resolver = resolver
        self._processes = processes
        self._policy = policy or LocalPolicy()
        self._joined: WeakSet[Collector] = WeakSet()
        self._unwanted: set[asyncio.Future[Located]] = set()
        self.leases = Leases()

    async def join(self, collector: Collector, entries: Sequence[Entry]) -> list[CoralError]:
        """Attaches the collector in those of ``entries`` that it does not have yet.

        Each becomes an instance that is attached, skipped (its image has no such function) or failed, with the reason. One
        whose library is not mapped yet becomes nothing, and can be given again.

        Returns:
            Why processes could not be attached, one error each.
        """
        errors: list[CoralError] = []
        service_pids = [entry.process.id.pid for entry in self._processes.known_instances(collector.spec.service_name)]
        function = FunctionName.parse(collector.spec.function_name)
        self._joined.add(collector)
        async with collector.changing:
            for entry in entries:
                process = entry.process
                if process.id in collector.tracked or collector.ending.is_set():
                    continue
                try:
                    await asyncio.to_thread(
                        self._policy.check_process,
                        process,
                        collector.spec.service_name,
                        names_of(collector.spec.function_name),
                    )
                    located = await self._locate(collector, process, function)
                except LibraryNotLoaded as error:
                    errors.append(error)
                except CoralError as error:
                    errors.append(error)
                    if await asyncio.to_thread(_runs_still, process):
                        self._refuse(collector, process, error)
                else:
                    if located is None:
                        break
                    try:
                        await self._attach(collector, process, located, service_pids)
                    except CoralError as error:
                        errors.append(error)
                        if await asyncio.to_thread(_runs_still, process):
                            self._refuse(collector, process, error)
                    finally:
                        os.close(located.fd)
        return errors

    async def _locate(self, collector: Collector, process: Process, function: FunctionName) -> Located | None:
        """As ``Resolver.locate``; None when the collector begins to end meanwhile, since it need not wait for that."""
        locating = asyncio.ensure_future(self._resolver.locate(process, function))
        ending = asyncio.ensure_future(collector.ending.wait())
        try:
            await asyncio.wait({locating, ending}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            locating.cancel()
            raise
        finally:
            ending.cancel()
        if not collector.ending.is_set():
            return locating.result()
        self._unwanted.add(locating)
        locating.add_done_callback(self._give_back)
        return None

    def _give_back(self, locating: asyncio.Future[Located]) -> None:
        """Closes a file that was read for nothing."""
        self._unwanted.discard(locating)
        if not locating.cancelled() and locating.exception() is None:
            os.close(locating.result().fd)

    def adopt(
        self, collector: Collector, *, parent: int, child: ProcessId, number: int, since_boot_ns: int
    ) -> Tracked | None:
        """Takes note of a forked child, which the kernel made a member before its first instruction.

        Returns:
            The child, if it needs a link of its own (see ``link_child``); else None.
        """
        origin = collector.of_pid(parent)
        if origin is None or origin.group is None:
            return None
        tracked = Tracked(
            id=child,
            instance=replace(
                origin.instance, pid=child.pid, start_time_ns=child.start_time_ns, reason=f"forked from pid {parent}"
            ),
            since_boot_ns=since_boot_ns,
            group=origin.group,
            number=number,
        )
        collector.track(tracked)
        return tracked if origin.group.by_process else None

    async def link_child(self, collector: Collector, tracked: Tracked) -> None:
        """Attaches a forked child by itself, since the link of its parent is for the parent alone."""
        group = tracked.group
        async with collector.changing:
            if group is None or collector.ending.is_set() or tracked.id not in collector.tracked:
                return
            try:
                group.attachments[tracked.id.pid] = await self._link(collector, group, tracked.id.pid)
            except CoralError as error:  # it may have ended meanwhile, too
                collector.update(tracked, status=InstanceStatus.FAILED, reason=error.message)
            else:
                collector.update(tracked, reason=f"{tracked.instance.reason}; its calls count from a moment after the fork")

    async def detach_unused(self, collector: Collector) -> None:
        """Closes the links that are for no process of the collector any more; ``collector.changing`` must be held."""
        for group in collector.groups.values():
            mine = [tracked.id.pid for tracked in collector.tracked.values() if tracked.group is group]
            used = set(mine) if group.by_process else {0} if mine else set()
            for scope in group.attachments.keys() - used:
                attachment = group.attachments.pop(scope, None)  # a collector that ends may have taken it
                if attachment is not None:
                    await asyncio.to_thread(attachment.detach)
            if not group.attachments:
                self.leases.give_back(group.fd)

    async def yield_to_writer(self, collector: Collector, fd: int) -> None:
        """Takes the probes out of a file that somebody waits to write in place.

        Args:
            collector: Whose image it may be.
            fd: Of the image; nothing happens when it is none of the collector's, or is not waited for any more.
        """
        async with collector.changing:
            for group in collector.groups.values():
                if group.fd != fd or collector.ended.is_set() or not self.leases.is_wanted(fd):
                    continue
                for tracked in list(collector.tracked.values()):
                    if tracked.group is group and tracked.instance.status is InstanceStatus.ATTACHED:
                        self._engine.remove_member(collector.slot, tracked.id.pid)
                        reason = "its file is being written over in place, so that its probes were taken out"
                        collector.update(tracked, status=InstanceStatus.FAILED, reason=reason)
                await asyncio.to_thread(self.close_links, [collector], only=group)

    def close_links(self, collectors: Iterable[Collector], *, only: Group | None = None) -> None:
        """Detaches, and lets writers of the files in. Blocking, up to some 100 ms for each link.

        Args:
            collectors: Whose links.
            only: One image; all when None.
        """
        for collector in collectors:
            for group in list(collector.groups.values()):
                if only is None or group is only:
                    with suppress(KeyError):  # there is none left
                        while True:
                            group.attachments.popitem()[1].detach()
                    self.leases.give_back(group.fd)

    async def _attach(self, collector: Collector, process: Process, located: Located, service_pids: Sequence[int]) -> None:
        pid = process.id.pid
        # Again, now that it is known what else the function is called.
        spec = collector.spec
        await asyncio.to_thread(self._policy.check_function, process, spec.service_name, spec.function_name, located.plan)
        check_authorised(located, collector.authorised)
        await self.detach_unused(collector)  # the file may have been written over since
        group = collector.groups.get(located.key)
        if group is None:
            group = collector.new_group(
                key=located.key,
                plan=located.plan,
                build_id=located.info.build_id,
                image_id=located.info.image_id,
                by_process=await asyncio.to_thread(self._needs_own_links, located, service_pids),
                # Opened anew: a lease belongs to one opening of a file, and other processes hold the one that was parsed.
                fd=os.open(f"/proc/self/fd/{located.fd}", os.O_RDONLY | os.O_CLOEXEC),
            )
        since_boot_ns = boot_ns()
        # A member first: from here on its children are members too, and nothing is counted before the links are there.
        number = self._engine.add_member(collector.slot, pid, group=group.number)
        try:
            # After it became a member: an exec from here on is seen by the kernel's side, which lets it go.
            if not await asyncio.to_thread(_runs_still, process):
                raise NotFound(f"Process {pid} ended or called exec before it could be attached.", hint="Try again.")
            scope = pid if group.by_process else 0
            if scope not in group.attachments:
                group.attachments[scope] = await self._link(collector, group, scope)
            missing = await asyncio.to_thread(breakpoints, pid, group.key, attached_sites(collector, group))
            if missing and group.by_process and await asyncio.to_thread(memory_task, pid) != pid:
                raise FailedPrecondition(
                    f"The main thread of process {pid} has ended, so that the kernel cannot put probes into this process "
                    f"alone, and other services map {group.plan.library} too.",
                    hint="Probe a function of the program itself, or of a library that no other service maps.",
                )
            if how := await asyncio.to_thread(out_of_reach, pid, group.key, missing):
                raise FailedPrecondition(
                    f"Process {pid} maps the code of {group.plan.name} {how}, and the kernel puts probes only into code "
                    "that is mapped private and read-only.",
                    hint="Link it without -N (--omagic) and without sections that are both writable and executable, or "
                    "attach when the program has made its code read-only again.",
                )
            if missing:
                raise FailedPrecondition(
                    f"{len(missing)} of {len(group.plan.sites)} breakpoints are not in the text of process {pid}.",
                    hint="Its image may have been replaced or be mapped in an unusual way.",
                )
        except (CoralError, OSError):
            self._engine.remove_member(collector.slot, pid)
            raise
        collector.track(
            Tracked(
                id=process.id,
                instance=Instance(
                    pid=pid,
                    start_time_ns=process.id.start_time_ns,
                    executable=process.executable,
                    build_id=group.build_id,
                    image_id=group.image_id,
                    function_name=group.plan.name,
                    status=InstanceStatus.ATTACHED,
                    reason=group.plan.reason,
                    method=group.plan.method,
                    sites=attached_sites(collector, group),
                ),
                since_boot_ns=since_boot_ns,
                group=group,
                number=number,
            )
        )

    async def _link(self, collector: Collector, group: Group, scope: int) -> Attachment:
        probed = self._probed(group.key.inode)
        sites = [site for site in attached_sites(collector, group) if site.offset not in probed]
        await asyncio.to_thread(refuse_debugged, group.key, sites, pid=scope)
        if scope:  # where the links are for all, no process had changed its code when that was decided
            await asyncio.to_thread(refuse_patched, scope, group.key, sites)
        if not group.attachments:
            self.leases.take(group.fd)
        try:
            now = ImageKey.of_fd(group.fd)
            if (now.size, now.mtime_ns) != (group.key.size, group.key.mtime_ns):
                raise FailedPrecondition(f"The file of {group.plan.name} was changed while it was read.", hint="Try again.")
            return await asyncio.to_thread(
                self._engine.attach,
                collector.slot,
                f"/proc/self/fd/{group.fd}",
                group.plan,
                first_site=group.first_site,
                mode=collector.spec.config.mode,
                pid=scope,
                group=group.number,
            )
        except OSError as error:
            raise FailedPrecondition(f"The kernel refused the probes of {group.plan.name}: {error.strerror}.") from error

    def _needs_own_links(self, located: Located, service_pids: Sequence[int]) -> bool:
        """Whether each process gets links of its own, because the probes of the file would be in others too. Blocking.

        A library's are kept from all other services; a program's from what is not to be probed at all, such as Coral itself
        where a service runs the same Python; both from processes that have changed their code.
        """
        if located.shared:
            others = self._processes.pids() - set(service_pids)
            if any(maps_privately(pid, located.key.inode) for pid in others):
                return True
            mine: Iterable[int] = service_pids
        else:
            if any(_runs(pid, located.key) for pid in self._spared_pids()):
                return True
            mine = [pid for pid in self._processes.pids() if _runs(pid, located.key)]
        return any(_has_patched(pid, located) for pid in mine)

    def _spared_pids(self) -> set[int]:
        """Coral's own processes, and those that the policy denies."""
        denied = {
            entry.process.id.pid
            for entry in self._processes.all_instances()
            if self._policy.denies(entry.process, entry.named.name)
        }
        return self._processes.own_pids() | denied

    def _probed(self, inode: int) -> set[FileOffset]:
        """Where in a file running collectors have links, so that a breakpoint there is the kernel's."""
        return {
            site.offset
            for collector in self._joined
            for group in collector.groups.values()
            if group.key.inode == inode and group.attachments
            for site in attached_sites(collector, group)
        }

    def _refuse(self, collector: Collector, process: Process, error: CoralError) -> None:
        skipped = isinstance(error, NotFound)
        if isinstance(error, NotAuthorised):
            collector.unauthorised.add(process.id)
        collector.track(
            Tracked(
                id=process.id,
                instance=Instance(
                    pid=process.id.pid,
                    start_time_ns=process.id.start_time_ns,
                    executable=process.executable,
                    function_name=collector.spec.function_name,
                    status=InstanceStatus.SKIPPED if skipped else InstanceStatus.FAILED,
                    reason=error.message,
                ),
            )
        )


def attached_sites(collector: Collector, group: Group) -> tuple[Site, ...]:
    """The sites of a group that carry breakpoints: in mode ``count`` the entries alone."""
    return group.plan.entries if collector.spec.config.mode is Mode.COUNT else group.plan.sites


def _runs_still(process: Process) -> bool:
    """Whether the process is there, and runs the program that it ran when it was read."""
    try:
        stat = read_stat(process.id.pid)
    except ProcessGone:
        return False
    return not stat.is_dead and (stat.start_time_ns, stat.mark) == (process.id.start_time_ns, process.mark)


def _runs(pid: int, key: ImageKey) -> bool:
    """Whether a process runs a program."""
    try:
        # By inode alone: overlay mounts that share a layer show one file under several devices.
        return Path(f"/proc/{pid}/exe").stat().st_ino == key.inode
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def _has_patched(pid: int, located: Located) -> bool:
    """Whether a process has changed the code of the function."""
    try:
        return patched(pid, located.key, located.plan.sites) != []
    except (ProcessGone, PermissionDenied):
        return False
