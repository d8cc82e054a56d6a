"""The independent disassembler: where objdump sees instructions, returns and jumps in a file."""

from __future__ import annotations

import array
import functools
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

OTHER, RETURN, JUMP = 0, 1, 2
# Prefixes are words of their own: "repz ret", "bnd jmp *%rax", "notrack jmp *%rdx"; hints follow a comma: "jne,pn".
_RETURN = re.compile(r"(?:repz |bnd |rex\.\w+ |data16 )*ret")
_JUMP = re.compile(r"(?:bnd |notrack |rex\.\w+ |data16 |ds )*(?:j|loop)")


class Listing(NamedTuple):
    """Every instruction of a file, by address.

    Attributes:
        vaddrs: Where they begin, ascending.
        sizes: How many bytes they have.
        kinds: ``RETURN``, ``JUMP`` (conditional ones too) or ``OTHER``.
    """

    vaddrs: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.uint8]
    kinds: npt.NDArray[np.uint8]

    def returns(self, start: int, end: int) -> list[int]:
        """The addresses of the returns from ``start`` on and before ``end``."""
        first, last = np.searchsorted(self.vaddrs, np.array((start, end), "u8"))
        found = self.vaddrs[first:last][self.kinds[first:last] == RETURN]
        return [int(vaddr) for vaddr in found]

    def at(self, vaddr: int) -> tuple[int, int] | None:
        """Size and kind of the instruction that begins at ``vaddr``; None when none does."""
        index = int(np.searchsorted(self.vaddrs, np.uint64(vaddr)))
        if index == len(self.vaddrs) or int(self.vaddrs[index]) != vaddr:
            return None
        return int(self.sizes[index]), int(self.kinds[index])


def listing(path: Path, kept: Path | None = None) -> Listing:
    """What objdump says of a file.

    Blocking: about half a second per MiB of code.

    Args:
        path: The file.
        kept: Where the answer of an earlier run is, or is to be put; None to keep none.

    Raises:
        RuntimeError: objdump failed.
    """
    if kept is not None and kept.exists():
        with np.load(kept) as stored:
            return Listing(stored["vaddrs"], stored["sizes"], stored["kinds"])
    found = _read(path)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        half = kept.with_suffix(".half.npz")
        np.savez_compressed(half, vaddrs=found.vaddrs, sizes=found.sizes, kinds=found.kinds)
        half.replace(kept)
    return found


def _read(path: Path) -> Listing:
    vaddrs, sizes, kinds = array.array("Q"), array.array("B"), array.array("B")
    # One line an instruction: "  401136:\t55                   \tpush   %rbp". A "(bad)" is none.
    command = ["objdump", "-d", "-z", "-w", "--insn-width=16", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            parts = line.split("\t", 2)
            if len(parts) != 3 or not parts[0].endswith(":"):
                continue
            vaddrs.append(int(parts[0][:-1], 16))
            sizes.append((len(parts[1].rstrip()) + 1) // 3)
            kinds.append(_kind(parts[2]) if parts[2][0] in "jrbndl" else OTHER)
        assert process.stderr is not None
        complaint = process.stderr.read()
    if process.returncode != 0:
        raise RuntimeError(f"objdump {path}: {complaint}")
    order = np.argsort(np.frombuffer(vaddrs, "u8"), kind="stable")
    return Listing(np.frombuffer(vaddrs, "u8")[order], np.frombuffer(sizes, "u1")[order], np.frombuffer(kinds, "u1")[order])


@functools.lru_cache(1 << 16)
def _kind(text: str) -> int:
    if _RETURN.match(text):
        return RETURN
    return JUMP if _JUMP.match(text) else OTHER
