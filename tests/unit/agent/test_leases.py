from __future__ import annotations

import os
import queue
import threading
from pathlib import Path

from coral.agent.leases import Leases


def test_a_writer_waits_until_the_lease_is_given_back(tmp_path: Path) -> None:
    """The holder is asked for the file that somebody opens for writing, and for no other; then the writer goes on."""
    wanted, other = tmp_path / "wanted", tmp_path / "other"
    for path in (wanted, other):
        path.write_bytes(b"old")
    asked: queue.Queue[int] = queue.Queue()
    leases = Leases()
    with leases.watched(asked.put):
        fd, second = (os.open(path, os.O_RDONLY) for path in (wanted, other))
        assert [leases.take(fd), leases.take(second)] == [True, True]
        assert wanted.read_bytes() == b"old"
        writer = threading.Thread(target=wanted.write_bytes, args=(b"new",))
        writer.start()
        assert asked.get(timeout=10) == fd
        assert (leases.is_wanted(fd), leases.is_wanted(second)) == (True, False)
        assert (writer.is_alive(), os.pread(fd, 3, 0)) == (True, b"old")
        leases.give_back(fd)
        writer.join(10)
        assert (writer.is_alive(), os.pread(fd, 3, 0)) == (False, b"new")
        assert not leases.is_wanted(fd)
        leases.give_back(second)
    for one in (fd, second):
        os.close(one)


def test_what_cannot_be_leased(tmp_path: Path) -> None:
    """A file that somebody has open for writing has no lease, nor has any while nobody watches; giving back is harmless."""
    path = tmp_path / "file"
    leases = Leases()
    with path.open("wb"), leases.watched(lambda _: None):
        fd = os.open(path, os.O_RDONLY)
        assert not leases.take(fd)
    assert not leases.take(fd)
    leases.give_back(fd)
    os.close(fd)
