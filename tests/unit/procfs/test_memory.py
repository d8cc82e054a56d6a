from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest
from support.actors import Actor

from coral.procfs.files import ProcessGone
from coral.procfs.maps import read_maps
from coral.procfs.memory import MemoryFault, read_memory


def test_memory_is_read_exactly() -> None:
    """As many bytes as were asked for, none included."""
    content = bytes(range(256)) * 64
    buffer = ctypes.create_string_buffer(content, len(content))
    address = ctypes.addressof(buffer)
    assert read_memory(os.getpid(), address, len(content)) == content
    assert read_memory(os.getpid(), address + 1, 3) == content[1:4]
    assert read_memory(os.getpid(), address, 0) == b""


def test_the_first_unreadable_address_is_named() -> None:
    """A range that runs out of its mapping is an error that says where, not a short answer."""
    mappings = read_maps(os.getpid())
    following = {m.start for m in mappings}
    last = next(m for m in mappings if m.inode and m.end not in following and m.path.startswith("/"))
    with pytest.raises(MemoryFault, match=f"nothing to read at {last.end:#x}") as caught:
        read_memory(os.getpid(), last.end - 16, 32)
    assert (caught.value.pid, caught.value.address) == (os.getpid(), last.end)


@pytest.mark.parametrize("address", [0, -1, 0x10, 1 << 62, 1 << 63, 1 << 64])
def test_an_address_that_cannot_be_is_a_fault(address: int) -> None:
    """No address makes anything but the same error."""
    with pytest.raises(MemoryFault):
        read_memory(os.getpid(), address, 8)


def test_a_negative_size_is_the_callers_mistake() -> None:
    """It is a ValueError."""
    with pytest.raises(ValueError, match="size is -1"):
        read_memory(os.getpid(), 0x1000, -1)


def test_the_memory_of_an_ended_process_is_gone(actor_path: Path) -> None:
    """A zombie and a reaped process are told apart from an unreadable address."""
    with Actor([actor_path]) as actor:
        start = read_maps(actor.pid)[0].start
        assert read_memory(actor.pid, start, 4) == b"\x7fELF"
        actor.tell("q")
        actor.wait_for_zombie()
        with pytest.raises(ProcessGone):
            read_memory(actor.pid, start, 4)
        actor.wait()
        with pytest.raises(ProcessGone):
            read_memory(actor.pid, start, 4)
