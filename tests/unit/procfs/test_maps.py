from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support.actors import Actor

from coral.model.addresses import FileOffset
from coral.model.errors import FailedPrecondition
from coral.procfs.files import ProcessGone
from coral.procfs.maps import Mapping, addresses_of, maps_privately, modules, open_module, parse_maps, read_maps
from coral.procfs.memory import read_memory


@contextmanager
def opened(pid: int, mapping: Mapping) -> Iterator[int]:
    """A descriptor of the mapped file."""
    fd = open_module(pid, mapping)
    try:
        yield fd
    finally:
        os.close(fd)


def test_every_form_of_a_line() -> None:
    """Files, deleted files, blanks and newlines in names, anonymous memory and the kernel's own areas."""
    text = (
        b"55d5d0000000-55d5d0001000 r-xp 00002000 fe:01 4711                       /opt/my app/a\\012b (deleted)\n"
        b"7f0000000000-7f0000002000 rw-p 00000000 00:00 0 \n"
        b"7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]\n"
        b"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"
    )
    none = {"file_offset": 0, "device": 0, "inode": 0}
    assert parse_maps(text) == [
        Mapping(
            start=0x55D5D0000000,
            end=0x55D5D0001000,
            file_offset=0x2000,
            device=os.makedev(0xFE, 1),
            inode=4711,
            path="/opt/my app/a\nb",
            executable=True,
            deleted=True,
        ),
        Mapping(start=0x7F0000000000, end=0x7F0000002000, path="", executable=False, writable=True, **none),
        Mapping(start=0x7FFC00000000, end=0x7FFC00021000, path="[stack]", executable=False, writable=True, **none),
        Mapping(start=0xFFFFFFFFFF600000, end=0xFFFFFFFFFF601000, path="[vsyscall]", executable=True, **none),
    ]
    with pytest.raises(ValueError, match="not a line"):
        parse_maps(b"7f00-8000 r-xp\n")


def test_the_modules_of_a_program(actor_path: Path) -> None:
    """The program and its libraries, each once, identified by device and inode; the data it has mapped is none."""
    with Actor([actor_path]) as actor:
        found = {Path(module.path).name.split(".")[0]: module for module in modules(actor.pid)}
        assert set(found) == {"actor", "libc", "ld-linux-x86-64"}
        status = actor_path.stat()
        program = found["actor"]
        assert (program.path, program.device, program.inode) == (str(actor_path), status.st_dev, status.st_ino)
        assert [m for m in read_maps(actor.pid) if m.inode == status.st_ino] == list(program.mappings)


def test_who_only_reads_a_file_through_a_shared_mapping_would_not_be_probed(tmp_path: Path) -> None:
    """As the agent's own readers do: a library that no other service maps is attached by its file, whoever reads it."""
    path = tmp_path / "library"
    path.write_bytes(b"x" * 4096)
    inode = path.stat().st_ino
    with path.open("rb") as file:
        assert not maps_privately(os.getpid(), inode)
        with mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ):
            assert not maps_privately(os.getpid(), inode)
            with mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ):
                assert maps_privately(os.getpid(), inode)


def test_an_executable_mapping_of_something_else_is_no_module(tmp_path: Path) -> None:
    """A file that does not begin as ELF does is left out, whatever it is mapped for."""
    text = tmp_path / "text"
    text.write_bytes(b"no ELF" * 1000)
    with text.open("rb") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC):
        assert [m.executable for m in read_maps(os.getpid()) if m.path == str(text)] == [True]
        assert str(text) not in [module.path for module in modules(os.getpid())]


def test_an_offset_is_found_where_the_process_executes_it(actor_path: Path) -> None:
    """The bytes at the address are the bytes of the file at the offset, for every executable mapping, to its last byte."""
    with Actor([actor_path]) as actor:
        for module in modules(actor.pid):
            content = Path(module.path).read_bytes()
            for mapping in (m for m in module.mappings if m.executable):
                for offset in (mapping.file_offset, mapping.file_offset + 16):
                    (address,) = addresses_of(module.mappings, FileOffset(offset))
                    assert read_memory(actor.pid, address, 16) == content[offset : offset + 16]


def test_an_offset_outside_code_has_no_address() -> None:
    """Only executable mappings count, from their first byte to the one before their end."""
    data = Mapping(start=0x1000, end=0x2000, file_offset=0, device=1, inode=1, path="/a", executable=False)
    code = Mapping(start=0x2000, end=0x3000, file_offset=0x800, device=1, inode=1, path="/a", executable=True)
    offsets = [0, 0x7FF, 0x800, 0x17FF, 0x1800]
    assert [addresses_of([data, code], FileOffset(offset)) for offset in offsets] == [[], [], [0x2000], [0x2FFF], []]


def test_the_mapped_file_is_opened_although_another_is_at_its_path(actor_path: Path, tmp_path: Path) -> None:
    """An upgrade that replaces the file while it runs does not lead to the new file."""
    copy = tmp_path / "app"
    copy.write_bytes(actor_path.read_bytes())
    copy.chmod(0o755)
    with Actor([copy]) as actor:
        inode = copy.stat().st_ino
        (tmp_path / "new").write_bytes(b"another file")
        (tmp_path / "new").rename(copy)
        (module,) = (m for m in modules(actor.pid) if m.path == str(copy))
        assert module.deleted
        with opened(actor.pid, module.mappings[0]) as fd:
            assert (os.fstat(fd).st_ino, os.pread(fd, 1 << 20, 0)) == (inode, actor_path.read_bytes())
            assert not os.get_inheritable(fd)


def test_a_mapping_that_was_split_since_still_leads_to_its_file(actor_path: Path) -> None:
    """The range may have another end by now; the file is the same."""
    with Actor([actor_path]) as actor:
        mapping = modules(actor.pid)[0].mappings[0]
        with opened(actor.pid, replace(mapping, end=mapping.end + 4096)) as fd:
            assert os.fstat(fd).st_ino == mapping.inode


def test_a_device_number_of_another_kind_is_accepted_for_the_same_path(actor_path: Path) -> None:
    """On btrfs and overlayfs stat(2) and the maps disagree on the device of the very same file."""
    with Actor([actor_path]) as actor:
        mapping = modules(actor.pid)[0].mappings[0]
        with opened(actor.pid, replace(mapping, device=mapping.device + 1)) as fd:
            assert os.fstat(fd).st_ino == mapping.inode
        with pytest.raises(FailedPrecondition, match="cannot be opened"):
            open_module(actor.pid, replace(mapping, device=mapping.device + 1, path="/other"))


def test_a_file_that_is_not_mapped_is_not_opened(actor_path: Path) -> None:
    """Another inode is another file; what was tried is told."""
    with Actor([actor_path]) as actor:
        mapping = modules(actor.pid)[0].mappings[0]
        with pytest.raises(FailedPrecondition, match="cannot be opened") as caught:
            open_module(actor.pid, replace(mapping, inode=mapping.inode + 1))
        assert f"is inode {mapping.inode}" in caught.value.details["tried"]
        with pytest.raises(FailedPrecondition, match="Nothing is mapped from a file"):
            open_module(actor.pid, replace(mapping, inode=0))


def test_the_maps_of_a_zombie_are_gone(actor_path: Path) -> None:
    """An empty list would say that it maps nothing."""
    with Actor([actor_path]) as actor:
        mapping = modules(actor.pid)[0].mappings[0]
        actor.tell("q")
        actor.wait_for_zombie()
        with pytest.raises(ProcessGone):
            read_maps(actor.pid)
        with pytest.raises(ProcessGone):
            open_module(actor.pid, mapping)


@pytest.fixture
def private_mount(tmp_path: Path) -> Iterator[Path]:
    """A file system whose mounts stay where they are made; ``/`` cannot be made so in a chroot, where it is no mount."""
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)
    subprocess.run(["mount", "--make-private", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.kernel
def test_a_file_in_another_mount_namespace_is_opened(actor_path: Path, private_mount: Path) -> None:
    """A program on a file system that only the process sees, as in a container, is reached all the same."""
    folder = private_mount / "own"
    folder.mkdir()
    script = 'mount -t tmpfs none "$1" && cp "$0" "$1/hidden" && exec "$1/hidden"'
    command = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", script, str(actor_path), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        pid = int(child.stdout.readline())
        (module,) = (m for m in modules(pid) if m.path.endswith("hidden"))
        assert not (folder / "hidden").exists()
        with opened(pid, module.mappings[0]) as fd:
            assert os.pread(fd, 1 << 20, 0) == actor_path.read_bytes()
        child.communicate(b"q")


def test_a_device_that_is_mapped_is_not_opened() -> None:
    """Opening some devices does something; that one is mapped makes it no file to read functions from."""
    with open("/dev/zero", "rb") as device, mmap.mmap(device.fileno(), mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ):
        (mapping,) = (each for each in read_maps(os.getpid()) if each.path == "/dev/zero")
        with pytest.raises(FailedPrecondition) as refused:
            open_module(os.getpid(), mapping)
    assert f"/proc/{os.getpid()}/root/dev/zero: not a regular file" in refused.value.details["tried"]


_OPEN_OWN_MODULES = """
import os
from coral.procfs.maps import modules, open_module
found = modules(os.getpid())
assert len(found) > 2
for module in found:
    mapping = module.mappings[0]
    try:
        os.open(f"/proc/self/map_files/{mapping.start:x}-{mapping.end:x}", os.O_RDONLY)
        raise SystemExit("this test needs a process without the capability")
    except PermissionError:
        pass
    assert os.fstat(open_module(os.getpid(), mapping)).st_ino == mapping.inode
"""


@pytest.mark.kernel
def test_without_capabilities_program_and_libraries_are_opened_all_the_same() -> None:
    """map_files needs a capability; for a process that may be looked into, exe and the paths do without."""
    command = ["setpriv", "--bounding-set=-all", sys.executable, "-c", _OPEN_OWN_MODULES]
    subprocess.run(command, check=True)
