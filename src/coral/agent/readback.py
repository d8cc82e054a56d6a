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


def out_of_reach(pid: int, key: ImageKey, sites: Sequence[Site]) -> str:
    """How a process maps sites so that the kernel puts no probes there, as the end of a sentence; empty when it does not.

    ``valid_vma`` of kernel/events/uprobes.c: a mapping must be private and executable, and not writable. Blocking.

    Raises:
        ProcessGone: The process ended.
        PermissionDenied: It may not be read.
    """
    for mapping in _of_image(read_maps(pid), key):
        if any(addresses_of([mapping], FileOffset(site.offset)) for site in sites):
            if mapping.shared:
                return "shared with its file (MAP_SHARED)"
            if mapping.writable:
                return "writable"
    return ""


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


def patched(pid: int, key: ImageKey, sites: Sequence[Site]) -> list[tuple[Site, bytes]]:
    """The sites at which a process does not run what its file has, each with what it runs there.

    Monitoring agents put jumps to code of their own there, programs fill in prepared places (LLVM's XRay), the dynamic linker
    writes text relocations. A probe would execute the file's instruction, and put it back at its end. A breakpoint over an
    otherwise unchanged instruction is somebody else's probe, with which ours get along. Blocking.

    Raises:
        ProcessGone: The process ended.
        PermissionDenied: It may not be read.
    """
    found = []
    for site, copies in _text(pid, key, sites):
        whole = len(site.original)
        unlike = [text for text in copies if text and text not in (site.original, _INT3 + site.original[1:whole])]
        found += [(site, text) for text in unlike[:1]]
    return found


def refuse_patched(pid: int, key: ImageKey, sites: Sequence[Site]) -> None:
    """Refuses to probe instructions that the process has changed. Blocking.

    Args:
        pid: The process.
        key: The image.
        sites: Those that carry no probe yet.

    Raises:
        FailedPrecondition: It has.
        ProcessGone: The process ended.
        PermissionDenied: It may not be read.
    """
    for site, text in patched(pid, key, sites)[:1]:
        raise FailedPrecondition(
            f"The code of the function was changed in process {pid}: at offset {site.offset:#x} of its file it runs "
            f"{text.hex(' ')} instead of {site.original.hex(' ')}.",
            hint="A monitoring agent or the program itself may have hooked the function: probe one of its callers or "
            "callees, or start the process without what changes its code.",
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
