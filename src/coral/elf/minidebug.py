"""MiniDebugInfo: a symbol table inside of a stripped image, in the section .gnu_debugdata, which Fedora and its kin ship.

It is an ELF file that has .symtab with the functions that .dynsym does not have, packed with xz (GDB's manual, "Debugging
Information in a Special Section").
"""

from __future__ import annotations

import lzma

from coral.elf.debuglink import Rejected
from coral.elf.headers import Headers
from coral.model.errors import FailedPrecondition

_LARGEST_BYTES = 1 << 27
"""Unpacked; that of the 100 MB of libLLVM has 10."""
_MOST_MEMORY_BYTES = 1 << 27


def mini_debug_info(image: Headers) -> Headers | None:
    """The ELF file in .gnu_debugdata; None when there is none.

    Args:
        image: The file around it.

    Raises:
        Rejected: It is damaged, or absurdly large.
    """
    section = image.section(".gnu_debugdata")
    packed = image.content(section) if section is not None else b""
    if not packed:
        return None
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_MEMORY_BYTES)
    try:
        data = unpacker.decompress(packed, _LARGEST_BYTES)
        if not unpacker.eof:
            larger = len(data) >= _LARGEST_BYTES
            raise Rejected(f"Its .gnu_debugdata {'unpacks to more than 128 MiB' if larger else 'is cut short'}.")
        return Headers(data, ".gnu_debugdata")
    except lzma.LZMAError as error:
        raise Rejected(f"Its .gnu_debugdata is damaged: {str(error).lower().rstrip('.')}.") from None
    except FailedPrecondition:
        raise Rejected("Its .gnu_debugdata holds no ELF file.") from None
