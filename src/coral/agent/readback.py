"""Reading the text of processes back: an attach counts once the breakpoints are there, a detach once they are gone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from coral.elf.image import ImageKey
from coral.model.addresses import FileOffset
from coral.model.errors import FailedPrecondition, PermissionDenied
from coral.model.site import Site
from coral.procfs.files import ProcessGone
from coral.procfs.maps import Mapping, addresses_of, read_maps
from coral.procfs.memory import Memory, MemoryFault
from coral.procfs.tracer import traced_processes

_INT3 = b"\xcc"


def breakpoints(pid: int, key: ImageKey, sites: Sequence[Site]) -> list[Site]:
    """The sites that do not carry a breakpoint everywhere in a process.

    Blocking.

    Raises:
        ProcessGone: The process ended.
    """
    missing = []
    for site, copies in _text(pid, key, sites):
        if not copies or any(text[:1] != _INT3 for text in copies):
            missing.append(site)
    return missing


def changed(pid: int, key: ImageKey, sites: Sequence[Site]) -> list[Site]:
    """The sites whose bytes somewhere in a process are not those of the file.

    Blocking.

    Raises:
        ProcessGone: The process ended.
    """
    return [
        site
        for site, copies in _text(pid, key, sites)
        if any(text and text[: len(site.original)] != site.original for text in copies)
    ]


def refuse_debugged(key: ImageKey, sites: Sequence[Site], *, pid: int) -> None:
    """Refuses to probe instructions on which a debugger has a breakpoint of its own.

    Both are an ``int3`` in the same place. The kernel would take the debugger's for its own, so that it never stops there
    again, and would remove it with its own. Blocking.

    Args:
        key: The image.
        sites: Those that carry no probe yet.
        pid: The process that is to be probed; 0 for every one that maps the image.

    Raises:
        FailedPrecondition: There is such a breakpoint.
    """
    for traced, tracer in traced_processes(pid):
        try:
            found = changed(traced, key, sites)
        except (ProcessGone, PermissionDenied):
            continue
        if found:
            raise FailedPrecondition(
                f"Process {traced} is under a debugger (pid {tracer}), which has changed the code of the function at offset "
                f"{found[0].offset:#x} of its file.",
                hint="Delete the debugger's breakpoints in this function, or let it detach, and attach again.",
            )


def _text(pid: int, key: ImageKey, sites: Sequence[Site]) -> Iterator[tuple[Site, list[bytes]]]:
    """What stands at each site, once for each time that the process maps it; nothing where that cannot be read any more."""
    mappings = _of_image(read_maps(pid), key)
    with Memory(pid) as memory:
        for site in sites:
            size = max(1, len(site.original))
            yield site, [_read(memory, address, size) for address in addresses_of(mappings, FileOffset(site.offset))]


def _read(memory: Memory, address: int, size: int) -> bytes:
    try:
        return memory.read(address, size)
    except MemoryFault:  # unmapped meanwhile, or the file was cut short
        return b""


def _of_image(mappings: Sequence[Mapping], key: ImageKey) -> list[Mapping]:
    """The mappings of one file. By inode alone where no mapping has the device too: overlayfs and btrfs show another one."""
    same = [mapping for mapping in mappings if mapping.inode == key.inode]
    exact = [mapping for mapping in same if mapping.device == key.device]
    return exact or same
