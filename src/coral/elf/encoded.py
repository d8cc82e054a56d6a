"""Numbers as exception tables write them: LEB128 (DWARF 5, section 7.6), and pointers with an encoding (LSB Core, 10.5.1)."""

from __future__ import annotations

_SIGNED = 0x08
_PC_RELATIVE = 0x10
_INDIRECT = 0x80
_SIZES = {0x00: 8, 0x02: 2, 0x03: 4, 0x04: 8, 0x08: 8, 0x0A: 2, 0x0B: 4, 0x0C: 8}
_LONGEST_LEB = 10
OMITTED = 0xFF


class Damaged(Exception):
    """The bytes are not what the format says, or end too early."""


class Reader:
    """Reads a piece of an image from its start on.

    Args:
        data: The bytes.
        vaddr: The address of the first one.
    """

    def __init__(self, data: bytes, vaddr: int) -> None:
        self._data = data
        self._base = vaddr
        self._at = 0

    @property
    def vaddr(self) -> int:
        """The address of what is read next."""
        return self._base + self._at

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._at

    def number(self, size_bytes: int, *, signed: bool = False) -> int:
        """A number of a fixed size.

        Raises:
            Damaged: There is not enough left.
        """
        piece = self._take(size_bytes)
        return int.from_bytes(piece, "little", signed=signed)

    def uleb(self) -> int:
        """An unsigned LEB128 number.

        Raises:
            Damaged: It does not end.
        """
        return self._leb()[0]

    def sleb(self) -> int:
        """A signed LEB128 number.

        Raises:
            Damaged: It does not end.
        """
        value, bits = self._leb()
        return value - (1 << bits) if value >> (bits - 1) & 1 else value

    def encoded(self, encoding: int) -> int | None:
        """A pointer with an encoding; None for a null pointer.

        Raises:
            Damaged: It is indirect or relative to something that is not known here.
        """
        at = self.vaddr
        if encoding & 0x0F == 0x01:
            value = self.uleb()
        elif encoding & 0x0F == 0x09:
            value = self.sleb()
        else:
            size = _SIZES.get(encoding & 0x0F)
            if size is None:
                raise Damaged
            value = self.number(size, signed=bool(encoding & _SIGNED))
        if encoding & _INDIRECT or encoding & 0x70 not in (0, _PC_RELATIVE):
            raise Damaged
        if not value:
            return None
        return (value + at if encoding & _PC_RELATIVE else value) & (1 << 64) - 1

    def skip_encoded(self, encoding: int) -> None:
        """Passes over a pointer, however it is meant.

        Raises:
            Damaged: How long it is, is not known.
        """
        if encoding != OMITTED:
            self.encoded(encoding & 0x0F)

    def text(self) -> bytes:
        """A string that ends with a zero byte.

        Raises:
            Damaged: It does not end.
        """
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise Damaged
        found = self._take(end - self._at)
        self._at += 1
        return found

    def skip(self, size_bytes: int) -> None:
        """Passes over bytes.

        Raises:
            Damaged: There are not so many.
        """
        self._take(size_bytes)

    def rest(self) -> bytes:
        """Everything that is left."""
        return self._take(self.left)

    def _take(self, size_bytes: int) -> bytes:
        if not 0 <= size_bytes <= self.left:
            raise Damaged
        piece = self._data[self._at : self._at + size_bytes]
        self._at += size_bytes
        return piece

    def _leb(self) -> tuple[int, int]:
        """The bits and how many they are."""
        value = bits = 0
        for _ in range(_LONGEST_LEB):
            byte = self.number(1)
            value |= (byte & 0x7F) << bits
            bits += 7
            if not byte & 0x80:
                return value, bits
        raise Damaged
