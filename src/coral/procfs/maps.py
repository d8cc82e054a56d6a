"""Which files a process has mapped, and where: /proc/PID/maps and /proc/PID/map_files, proc(5)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from coral.model.addresses import Address, FileOffset
from coral.model.errors import FailedPrecondition, PermissionDenied
from coral.procfs.below_root import open_below, open_regular, open_root
from coral.procfs.files import PROC, ProcessGone, read_file
from coral.procfs.memory import MemoryFault, read_memory
from coral.procfs.stat import read_stat
from coral.procfs.threads import memory_task

_LINE = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) (....) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) *(.*)", re.DOTALL)
_DELETED = b" (deleted)"
_ELF_MAGIC = b"\x7fELF"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """A range of addresses of one process.

    Attributes:
        start: Its first address.
        end: The address after its last one.
        file_offset: Position in the file of what is at ``start``.
        device: Of the file, as ``st_dev`` has it; on btrfs and overlayfs another number than stat(2) gives. 0 without a file.
        inode: Of the file; 0 without one.
        path: Of the file as the process sees it, or ``[stack]`` and the like, or empty.
        executable: Whether code may run there.
        deleted: Whether the file has been unlinked or replaced since.
        writable: Whether the process may write there.
        shared: Whether what it writes goes to the file (MAP_SHARED).
    """

    start: int
    end: int
    file_offset: int
    device: int
    inode: int
    path: str
    executable: bool
    deleted: bool = False
    writable: bool = False
    shared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """An ELF file that a process has mapped to run code from.

    Attributes:
        path: As the process sees it.
        device: As the mappings have it; with ``inode`` it says which file.
        inode: Likewise.
        deleted: Whether it has been unlinked or replaced since.
        mappings: All of this file, by address, the ones without code included.
    """

    path: str
    device: int
    inode: int
    deleted: bool
    mappings: tuple[Mapping, ...]


def parse_maps(data: bytes) -> list[Mapping]:
    """Parses the text of /proc/PID/maps.

    Raises:
        ValueError: A line is not of its form.
    """
    mappings = []
    for line in data.split(b"\n"):
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"not a line of /proc/PID/maps: {line[:120]!r}")
        start, end, access, offset, major, minor, inode, path = match.groups()
        mappings.append(
            Mapping(
                start=int(start, 16),
                end=int(end, 16),
                file_offset=int(offset, 16),
                device=os.makedev(int(major, 16), int(minor, 16)),
                inode=int(inode),
                # The kernel escapes the newline and nothing else (fs/proc/task_mmu.c: seq_path(m, path, "\n")).
                path=os.fsdecode(path.removesuffix(_DELETED).replace(b"\\012", b"\n")),
                executable=access[2:3] == b"x",
                deleted=path.endswith(_DELETED),
                writable=access[1:2] == b"w",
                shared=access[3:4] == b"s",
            )
        )
    return mappings


def read_maps(pid: int, *, proc: Path = PROC) -> list[Mapping]:
    """All mappings of a process, by address; none for a kernel thread.

    Raises:
        ProcessGone: It vanished.
        PermissionDenied: It may not be read.
    """
    mappings = parse_maps(read_file(pid, "maps", proc=proc))
    if not mappings:
        stat = read_stat(pid, proc=proc)
        if stat.is_dead:
            raise ProcessGone(pid)
        if not stat.is_kernel_thread and (task := memory_task(pid, proc=proc, stat=stat)) != pid:
            return parse_maps(read_file(pid, f"task/{task}/maps", proc=proc))
    return mappings


def modules(pid: int) -> list[Module]:
    """The distinct ELF files that a process has mapped with code, by address: the program, its loader, its libraries.

    Raises:
        ProcessGone: It vanished.
        PermissionDenied: It may not be read.
    """
    by_file: dict[tuple[int, int], list[Mapping]] = {}
    for mapping in read_maps(pid):
        if mapping.inode:
            by_file.setdefault((mapping.device, mapping.inode), []).append(mapping)
    return [
        Module(path=first.path, device=first.device, inode=first.inode, deleted=first.deleted, mappings=tuple(mappings))
        for mappings in by_file.values()
        if (first := mappings[0]) and any(m.executable for m in mappings) and _is_elf(pid, mappings)
    ]


def maps_privately(pid: int, inode: int, *, proc: Path = PROC) -> bool:
    """Whether a process maps a file as private, so that a probe in the file would be in the process too.

    A file that is shared gets none (``valid_vma`` of kernel/events/uprobes.c): so do Coral's own readers map what they read.

    Args:
        pid: The process; one that is gone maps nothing.
        inode: Of the file; its device is another one in /proc/PID/maps than in stat(2) on overlayfs and btrfs.
        proc: Where proc is mounted.
    """
    try:
        text = (proc / str(pid) / "maps").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    needle = f" {inode} ".encode()
    if needle not in text:
        return False
    return any(mapping.inode == inode and not mapping.shared for mapping in parse_maps(text))


def addresses_of(mappings: Iterable[Mapping], offset: FileOffset) -> list[Address]:
    """Everywhere the process executes what is at this place of the file: dlmopen(3) maps a library once more.

    Args:
        mappings: Of one file, such as those of a :class:`Module`.
        offset: In that file.

    Returns:
        The addresses in the executable mappings that hold it, in their order; none when no executable mapping does.
    """
    return [
        Address(mapping.start + offset - mapping.file_offset)
        for mapping in mappings
        if mapping.executable and 0 <= offset - mapping.file_offset < mapping.end - mapping.start
    ]


def open_module(pid: int, mapping: Mapping) -> int:
    """Opens the very file that is mapped, also when its path is gone, holds another file now, or is in another namespace.

    /proc/PID/map_files needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN; without it the program itself is taken from
    /proc/PID/exe, and a library by its path below /proc/PID/root. What was opened is compared with the mapping by device and
    inode, or by path and inode when the device differs: stat(2) on btrfs gives the number of the subvolume, on overlayfs that
    of the overlay or of one of its layers, where /proc/PID/maps gives that of the file system below.

    Args:
        pid: Whose mapping.
        mapping: One that has a file.

    Returns:
        A descriptor, read only and closed on exec. The caller closes it.

    Raises:
        ProcessGone: The process vanished.
        FailedPrecondition: The file cannot be reached, or nothing is mapped there any more.
    """
    if not mapping.inode:
        raise FailedPrecondition(
            f"Nothing is mapped from a file at {mapping.start:#x} of process {pid}.", hint="Name a mapping that has a file."
        )
    tried = []
    for path in _ways_to(pid, mapping):
        try:
            fd = _opened(pid, path)
        except OSError as error:
            tried.append(f"{path}: {error.strerror}")
            continue
        found = os.fstat(fd)
        if found.st_ino == mapping.inode and (found.st_dev == mapping.device or _same_path(path, mapping)):
            return fd
        os.close(fd)
        tried.append(f"{path}: is inode {found.st_ino}")
    read_stat(pid)
    raise FailedPrecondition(
        f"The file {mapping.path!r} (inode {mapping.inode}) mapped by process {pid} cannot be opened.",
        hint="Run the agent as root, or give it CAP_CHECKPOINT_RESTORE and CAP_SYS_PTRACE.",
        details={"tried": "; ".join(tried)},
    )


def _opened(pid: int, way: str) -> int:
    """Opens for reading what is a regular file: opening a device may already do something, and a mapping may be of one."""
    root = f"/proc/{pid}/root/"
    if not way.startswith(root):
        return open_regular(way)
    root_fd = open_root(pid)
    try:
        return open_below(root_fd, way.removeprefix(root.rstrip("/")))
    finally:
        os.close(root_fd)


def _ways_to(pid: int, mapping: Mapping) -> Iterable[str]:
    """Paths that may lead to the mapped file, the surest first."""
    task = memory_task(pid)
    yield f"/proc/{task}/map_files/{mapping.start:x}-{mapping.end:x}"
    # mprotect splits and merges mappings: the range may have another name by now.
    for other in read_maps(pid):
        if (other.device, other.inode) == (mapping.device, mapping.inode):
            yield f"/proc/{task}/map_files/{other.start:x}-{other.end:x}"
            break
    yield f"/proc/{task}/exe"
    if not mapping.deleted:
        yield f"/proc/{task}/root{mapping.path}"


def _same_path(way: str, mapping: Mapping) -> bool:
    """Whether the kernel names the file behind a way as it names the mapped one."""
    if way.endswith(mapping.path) and "/root/" in way:
        return True
    try:
        return str(Path(way).readlink()).removesuffix(_DELETED.decode()) == mapping.path
    except OSError:
        return False


def _is_elf(pid: int, mappings: list[Mapping]) -> bool:
    """Whether the file begins as ELF does, by the memory where its beginning is mapped, else by the file."""
    for mapping in mappings:
        if mapping.file_offset == 0:
            try:
                return read_memory(pid, mapping.start, len(_ELF_MAGIC)) == _ELF_MAGIC
            except (MemoryFault, PermissionDenied):
                # A mapping beyond the end of a truncated file, or no right to look into the process: ask the file.
                break
    try:
        fd = open_module(pid, mappings[0])
    except FailedPrecondition:
        return False
    try:
        return os.pread(fd, len(_ELF_MAGIC), 0) == _ELF_MAGIC
    finally:
        os.close(fd)
