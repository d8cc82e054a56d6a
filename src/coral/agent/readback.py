"""Reading the text of processes back: an attach counts once the breakpoints are there, a detach once they are gone."""

from __future__ import annotations

from collections.abc import Sequence

from coral.elf.image import ImageKey
from coral.model.addresses import Address, FileOffset
from coral.model.site import Site
from coral.procfs.maps import Mapping, address_of, read_maps
from coral.procfs.memory import read_memory

_INT3 = 0xCC


def breakpoints(pid: int, key: ImageKey, sites: Sequence[Site]) -> list[Site]:
    """The sites that do not carry a breakpoint in a process.

    Blocking.

    Raises:
        ProcessGone: The process ended.
    """
    missing = []
    for site, address in _addresses(pid, key, sites):
        first = read_memory(pid, address, 1)[0] if address is not None else 0
        if first != _INT3:
            missing.append(site)
    return missing


def changed(pid: int, key: ImageKey, sites: Sequence[Site]) -> list[Site]:
    """The sites whose bytes in a process are not those of the file.

    Blocking.

    Raises:
        ProcessGone: The process ended.
    """
    return [
        site
        for site, address in _addresses(pid, key, sites)
        if address is not None and read_memory(pid, address, len(site.original)) != site.original
    ]


def _addresses(pid: int, key: ImageKey, sites: Sequence[Site]) -> list[tuple[Site, Address | None]]:
    mappings = _of_image(read_maps(pid), key)
    return [(site, address_of(mappings, FileOffset(site.offset))) for site in sites]


def _of_image(mappings: Sequence[Mapping], key: ImageKey) -> list[Mapping]:
    """The mappings of one file. By inode alone where no mapping has the device too: overlayfs and btrfs show another one."""
    same = [mapping for mapping in mappings if mapping.inode == key.inode]
    exact = [mapping for mapping in same if mapping.device == key.device]
    return exact or same
