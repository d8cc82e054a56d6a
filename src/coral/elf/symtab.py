"""Symbol tables as arrays: a large program has hundreds of thousands of symbols, and most of them are of no interest.

The format is that of the System V gABI, chapter 4, "Symbol Table".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coral.model.errors import FailedPrecondition

SYMBOL = np.dtype([("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")])
STT_NOTYPE, STT_FUNC, STT_FILE, STT_GNU_IFUNC = 0, 2, 4, 10
STB_LOCAL = 0
SHN_UNDEF = 0

_LONGEST_NAME_BYTES = 1 << 16
_MOST_NAME_BYTES = 1 << 28


class Symbols(NamedTuple):
    """One symbol table.

    Attributes:
        table: Its entries, with the fields of ``SYMBOL``.
        strings: What their names are offsets into.
    """

    table: npt.NDArray[np.void]
    strings: bytes

    @classmethod
    def of(cls, table: bytes, strings: bytes) -> Symbols:
        """A table as the file has it; what is behind its last whole entry is left out."""
        count = len(table) // SYMBOL.itemsize
        return cls(np.frombuffer(table, SYMBOL, count), strings)

    @property
    def types(self) -> npt.NDArray[np.uint8]:
        """The STT_* of each symbol."""
        types: npt.NDArray[np.uint8] = self.table["info"] & np.uint8(15)
        return types

    @property
    def bindings(self) -> npt.NDArray[np.uint8]:
        """The STB_* of each symbol."""
        bindings: npt.NDArray[np.uint8] = self.table["info"] >> np.uint8(4)
        return bindings

    def names(self, indexes: npt.NDArray[np.integer[Any]]) -> list[str]:
        """The names of the symbols with these numbers; bytes that are not UTF-8 are replaced.

        Raises:
            FailedPrecondition: They are absurdly long together: string tables may overlap, so a small file can claim that.
        """
        offsets: list[int] = self.table["name"][indexes].tolist()
        strings, found, total = self.strings, [], 0
        for offset in offsets:
            end = strings.find(b"\0", offset, offset + _LONGEST_NAME_BYTES)
            total += end - offset
            if total > _MOST_NAME_BYTES:
                raise FailedPrecondition(
                    "Its symbols have more than 256 MiB of names.", hint="No compiler writes that: look where it is from."
                )
            found.append(strings[offset:end].decode("utf-8", "replace") if end > offset else "")
        return found
