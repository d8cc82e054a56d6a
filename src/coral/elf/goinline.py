"""Which Go functions were inlined, and into which: the inline trees that the runtime prints stacks by.

A function's ``_func`` says where its tree is (funcdata 3, relative to ``gofunc`` of moduledata) and which of its instructions
belong to which node (pcdata 2, by program counter); a node has the name of the function that was inlined (``inlinedCall``,
runtime/symtabinl.go since Go 1.20, runtime/symtab.go before).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from coral.elf import gomodule, gopcvalue
from coral.elf.file import ElfFile
from coral.elf.gotable import GoTable
from coral.model.addresses import Vaddr

_FUNCDATA_TREE = 3
_PCDATA_NODE = 2
_NONE = 0xFFFFFFFF
_ENOUGH = 32
_MOST_NODES = 1 << 16
_WORD = struct.Struct("<I")


class _Layout(NamedTuple):
    """Of a node: how large it is, and where in it the offset of the name is."""

    size_bytes: int
    name: int


_LAYOUTS = {gomodule.MAGIC_118: _Layout(20, 12), gomodule.MAGIC_120: _Layout(16, 4)}


class InlineTrees:
    """Answers which functions hold inlined copies of others.

    Args:
        file: The file.
        table: Its Go functions.
    """

    def __init__(self, file: ElfFile, table: GoTable) -> None:
        self._file = file
        self._table = table

    def holders(self, name: str, *, whole: bool = False) -> list[str]:
        """The functions that a function was inlined into.

        Args:
            name: Of the function: whole, or its end behind a separator.
            whole: Whether it is the whole one.
        """
        found: dict[str, None] = {}
        for offset in self._names_like(name, b"" if whole else rb"(?:[^\0]*[./])?"):
            for holder in self._holding(offset):
                found[holder] = None
        return list(found)

    def _names_like(self, name: str, before: bytes) -> Iterator[int]:
        """The offsets of the names that are what matches ``before`` and then ``name``."""
        header = self._table.header
        if header is None or not self._table:
            return
        pattern = re.compile(rb"\0(" + before + re.escape(name.encode("utf-8", "replace")) + rb")\0")
        at = max(header.names - 1, 0)
        while (match := pattern.search(header.data, at, header.functions)) is not None:
            yield match.start(1) - header.names
            at = match.end() - 1

    def _holding(self, name: int) -> Iterator[str]:
        """The functions with a node of the name at an offset."""
        layout, base, trees = self._layout, self._base, self._trees
        if base is None or not len(trees):
            return
        places = np.flatnonzero(self._words == name) * 4
        for place in places.tolist():
            index = int(np.searchsorted(trees[:, 0], place, side="right")) - 1
            if index < 0:
                continue
            node, rest = divmod(place - int(trees[index, 0]), layout.size_bytes)
            if rest == layout.name and node < self._nodes(int(trees[index, 1])):
                yield self._table.name_of(int(trees[index, 1]))

    def _nodes(self, function: int) -> int:
        """How many nodes the tree of a function has, by the instructions that belong to one."""
        at = self._table.pcdata(function, _PCDATA_NODE)
        values = (value for value, _ in gopcvalue.steps(self._table.data, self._table.pc_values + at)) if at else iter(())
        return min(max(values, default=-1) + 1, _MOST_NODES)

    @property
    def _layout(self) -> _Layout:
        header = self._table.header
        return _LAYOUTS[header.magic if header is not None else gomodule.MAGIC_120]

    @cached_property
    def _trees(self) -> npt.NDArray[np.int64]:
        """Where the trees begin behind ``gofunc``, sorted, each with the index of its function."""
        offsets = self._table.funcdata(_FUNCDATA_TREE)
        indexes = np.flatnonzero(offsets != _NONE)
        trees = np.stack((offsets[indexes], indexes), axis=1)
        return trees[np.argsort(trees[:, 0], kind="stable")]

    @cached_property
    def _base(self) -> Vaddr | None:
        """The address that trees are relative to: of the words that may hold it, the one with names where names must be."""
        module = self._table.module
        if module is None:
            return None
        samples = self._trees[:: max(1, len(self._trees) // _ENOUGH), 0].tolist()
        for word in gomodule.GOFUNC_WORDS:
            base = self._file.pointer(module + 8 * word)
            nodes = [self._file.read(base + sample + self._layout.name, 4) for sample in samples]
            if any(map(any, nodes)) and all(len(node) == 4 and self._is_name(_WORD.unpack(node)[0]) for node in nodes):
                return Vaddr(base)
        return None

    def _is_name(self, offset: int) -> bool:
        header = self._table.header
        if header is None or not 0 <= offset < header.functions - header.names:
            return False
        return (not offset or header.data[header.names + offset - 1] == 0) and header.data[header.names + offset] != 0

    @cached_property
    def _words(self) -> npt.NDArray[np.uint32]:
        """What lies behind ``gofunc``, as far as there are trees, in words of 32 bits."""
        if self._base is None or not len(self._trees):
            return np.empty(0, np.uint32)
        data = self._file.read(self._base, int(self._trees[-1, 0]) + _MOST_NODES * self._layout.size_bytes)
        return np.frombuffer(data, "<u4", len(data) // 4)
