"""Who refers to a place in the code: every call, jump and address computation of an image, found without decoding it.

At every byte that can begin one (``e8`` call, ``e9`` and ``0f 8x`` jumps, ``8d`` lea with a rip-relative operand), where
would it lead? Some of what is found is the inside of other instructions, and leads nowhere in particular: there may be a
reference too many, once in hundreds of megabytes, but none is missed, apart from 8-bit jumps from within 128 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coral.elf.file import ElfFile, Segment

_Addresses = npt.NDArray[np.int64]


class _Sorted(NamedTuple):
    """References by their target."""

    targets: _Addresses
    sources: _Addresses

    def to(self, target: int) -> list[int]:
        """The addresses behind the references to ``target``."""
        first, last = np.searchsorted(self.targets, (target, target + 1))
        return [int(source) for source in self.sources[first:last]]


class References:
    """The references of one image, collected when first asked for."""

    def __init__(self, file: ElfFile) -> None:
        self._file = file

    def calls(self, target: int) -> list[int]:
        """Where ``target`` is called: the addresses behind the calls."""
        return self._calls.to(target)

    def jumps(self, target: int) -> list[int]:
        """Where a jump with a 32-bit distance goes to ``target``: the addresses behind the jumps."""
        return self._jumps.to(target)

    def into(self, start: int, end: int) -> list[tuple[int, int]]:
        """The calls and jumps to places from ``start`` on and before ``end``: each place, and the address behind the call."""
        found: list[tuple[int, int]] = []
        for references in (self._calls, self._jumps):
            first, last = np.searchsorted(references.targets, (start, end))
            found += zip(references.targets[first:last].tolist(), references.sources[first:last].tolist(), strict=True)
        return sorted(found)

    def is_taken(self, target: int) -> bool:
        """Whether the address ``target`` is computed by code or stored in data."""
        if self._leas.to(target):
            return True
        if self._file.pie:
            # What data holds is relocated: by an addend, or in place (RELR), where it is writable at first.
            data = [segment for segment in self._file.segments if segment.writable]
            if target in self._relocated:
                return True
        else:
            data = [segment for segment in self._file.segments if not segment.executable]
            if any(self._has(segment, target, "<u4", range(4)) for segment in self._file.executable_segments):
                return True
        return any(self._has(segment, target, "<u8", (0,)) for segment in data)

    def taken_between(self, start: int, end: int) -> set[int]:
        """Which addresses from ``start`` on and before ``end`` are computed by code or stored in data."""
        leas = self._leas.targets
        first, last = np.searchsorted(leas, (start, end))
        found = {int(target) for target in leas[first:last]}
        found.update(target for target in self._relocated if start <= target < end)
        for segment in self._file.segments:
            if self._file.pie and not segment.writable:
                continue  # nothing is relocated there, and nothing else knows where it will lie
            # Code that is not position independent has addresses as 32-bit operands, at any byte.
            kind, shifts = ("<u4", range(4)) if segment.executable else ("<u8", range(1))
            for values in self._words(segment, kind, shifts):
                found.update(int(value) for value in values[(values >= start) & (values < end)])
        return found

    def next_taken(self, vaddr: int) -> int | None:
        """The next address behind ``vaddr``, in code or data, that a rip-relative lea computes; None when there is none."""
        targets = self._leas.targets
        index = int(np.searchsorted(targets, vaddr + 1))
        return int(targets[index]) if index < len(targets) else None

    @cached_property
    def _relocated(self) -> frozenset[int]:
        return frozenset(self._file.relocated.values())

    @cached_property
    def _calls(self) -> _Sorted:
        def found(code: npt.NDArray[np.uint8]) -> _Addresses:
            calls: _Addresses = np.flatnonzero(code == 0xE8) + 1
            return calls

        return self._collect(found)

    @cached_property
    def _jumps(self) -> _Sorted:
        def found(code: npt.NDArray[np.uint8]) -> _Addresses:
            long = np.flatnonzero(code == 0xE9) + 1
            prefixes = np.flatnonzero(code[:-1] == 0x0F)
            conditional = prefixes[code[prefixes + 1] & 0xF0 == 0x80] + 2
            both: _Addresses = np.concatenate((long, conditional))
            return both

        return self._collect(found)

    @cached_property
    def _leas(self) -> _Sorted:
        def found(code: npt.NDArray[np.uint8]) -> _Addresses:
            leas = np.flatnonzero(code[:-1] == 0x8D)
            relative: _Addresses = leas[code[leas + 1] & 0xC7 == 0x05] + 2
            return relative

        return self._collect(found)

    def _collect(self, find: Callable[[npt.NDArray[np.uint8]], _Addresses]) -> _Sorted:
        targets, sources = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for segment in self._file.executable_segments:
            code = np.frombuffer(self._bytes(segment), np.uint8)
            if len(code) < 8:
                continue
            at = find(code)
            at = at[at <= len(code) - 4]
            distance = np.zeros(len(at), np.uint32)
            for byte in range(4):
                distance |= code[at + byte].astype(np.uint32) << np.uint32(8 * byte)
            behind = at + (segment.vaddr + 4)
            to = behind + distance.view(np.int32)
            inside = (to >= self._file.lowest) & (to < self._file.highest)
            targets.append(to[inside])
            sources.append(behind[inside])
        to, behind = np.concatenate(targets), np.concatenate(sources)
        order = np.argsort(to, kind="stable")
        return _Sorted(to[order], behind[order])

    def _has(self, segment: Segment, value: int, kind: str, shifts: Iterable[int]) -> bool:
        if value >= 1 << 8 * np.dtype(kind).itemsize:
            return False
        return any(bool((values == value).any()) for values in self._words(segment, kind, shifts))

    def _words(self, segment: Segment, kind: str, shifts: Iterable[int]) -> Iterator[npt.NDArray[np.unsignedinteger[Any]]]:
        """What a segment holds in aligned words of a kind, once for each number of bytes that they are shifted by."""
        data = self._bytes(segment)
        size = np.dtype(kind).itemsize
        start = -segment.vaddr % size
        for shift in shifts:
            if len(data) > start + shift:
                yield np.frombuffer(data, kind, max(0, (len(data) - start - shift) // size), start + shift)

    def _bytes(self, segment: Segment) -> memoryview:
        return memoryview(self._file.data)[segment.file_offset : segment.file_offset + segment.file_size_bytes]
