"""Clocks and disks that fail for one process alone: ``preload.c``, compiled once, and the file that steers it."""

from __future__ import annotations

import functools
import hashlib
import mmap
import os
import struct
import subprocess
from pathlib import Path

from support.build import BUILD

_SOURCE = Path(__file__).with_name("preload.c")
_SIZE_BYTES = 4096
_WALL, _BOOT, _ERRNO, _SYNC, _WRITE, _MET = range(0, 48, 8)
_FOLDER = 48


@functools.cache
def library() -> Path:
    """``preload.c`` as a shared library."""
    name = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    made = BUILD / f"preload-{name}.so"
    if not made.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        beside = made.with_suffix(f".{os.getpid()}")
        subprocess.run(["gcc", "-O2", "-Wall", "-shared", "-fPIC", _SOURCE, "-o", beside, "-ldl"], check=True)
        beside.replace(made)
    return made


class Preload:
    """What goes wrong for the processes that are started with its ``env``; takes effect at once.

    Args:
        control: The file through which they see it; made anew.
        folder: Whose files a failing disk has.
    """

    def __init__(self, control: Path, folder: Path | None = None) -> None:
        control.write_bytes(bytes(_SIZE_BYTES))
        with control.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE_BYTES)
        name = str(folder.resolve()).encode() if folder else b""
        self._map[_FOLDER : _FOLDER + len(name)] = name
        self.env = {"LD_PRELOAD": str(library()), "CORAL_FAULTS": str(control)}

    def _set(self, at: int, value: int) -> None:
        struct.pack_into("<q", self._map, at, value)

    def set_wall(self, ahead_s: float) -> None:
        """Sets the wall clock to the machine's plus ``ahead_s``."""
        self._set(_WALL, round(ahead_s * 1e9))

    def set_boot(self, ahead_s: float) -> None:
        """Sets CLOCK_BOOTTIME to the machine's plus ``ahead_s``, as time that passed while the host was suspended."""
        self._set(_BOOT, round(ahead_s * 1e9))

    def set_disk(self, *, error: int = 0, sync_delay_s: float = 0.0, write_delay_s: float = 0.0) -> None:
        """Has every write below the folder fail with an errno (0 for none), or take its time."""
        self._set(_SYNC, round(sync_delay_s * 1e6))
        self._set(_WRITE, round(write_delay_s * 1e6))
        self._set(_ERRNO, error)

    @property
    def met(self) -> int:
        """How many writes have met a fault of the disk."""
        value: int = struct.unpack_from("<q", self._map, _MET)[0]
        return value

    def close(self) -> None:
        """Lets go of the file; what was set stays as it is."""
        self._map.close()
