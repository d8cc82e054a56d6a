"""Files that hold what was stripped from an image: what the image says of them, and whether a file is the right one.

The conventions are GDB's ("Debugging Information in Separate Files"): a file is found by the build id of the image, or by the
name and the CRC-32 in its section .gnu_debuglink. The CRC is that of zlib.
"""

from __future__ import annotations

import mmap
import zlib
from typing import NamedTuple

from coral.elf.headers import Data, Headers
from coral.elf.image import OpenFile
from coral.model.errors import FailedPrecondition
from coral.model.text import printable

_LONGEST_NAME_BYTES = 255  # NAME_MAX of Linux
_CHUNK_BYTES = 1 << 24


class DebugLink(NamedTuple):
    """What .gnu_debuglink says.

    Attributes:
        name: The base name of the file.
        crc: The CRC-32 of its content.
    """

    name: str
    crc: int


class Rejected(Exception):
    """A file does not belong to the image; the text is a sentence that says why."""


def debug_link(headers: Headers) -> DebugLink | None:
    """The name and CRC in .gnu_debuglink; None when there is none, or none that names a file in a folder."""
    section = headers.section(".gnu_debuglink")
    content = headers.content(section) if section is not None else b""
    name = content.partition(b"\0")[0]
    crc_at = len(name) + 4 & ~3
    if not 0 < len(name) <= _LONGEST_NAME_BYTES or len(content) < crc_at + 4 or b"/" in name or name in (b".", b".."):
        return None
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return None  # a name that cannot be said, and that nobody gives a file of symbols
    return DebugLink(text, int.from_bytes(content[crc_at : crc_at + 4], "little"))


def debug_file(image: Headers, candidate: OpenFile) -> Headers:
    """The headers of a file that holds what was stripped from an image.

    Args:
        image: The image.
        candidate: The file.

    Raises:
        Rejected: It is another's.
    """
    path = printable(candidate.path)
    try:
        data: Data = mmap.mmap(candidate.fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)
        headers = Headers(data, candidate.path)
    except (OSError, ValueError, FailedPrecondition):
        raise Rejected(f"{path} was not used: it is no ELF file for this machine.") from None
    if candidate.linked:
        link = debug_link(image)
        if link is None or link.crc != _crc(data):
            wanted = f"{link.crc:08x}" if link is not None else "known"
            raise Rejected(f"{path} was not used: its CRC is not {wanted}, as the program's .gnu_debuglink says.")
        if headers.build_id and image.build_id and headers.build_id != image.build_id:
            raise Rejected(_other_build(path, headers.build_id, image.build_id))
    elif not image.build_id or headers.build_id != image.build_id:
        raise Rejected(_other_build(path, headers.build_id, image.build_id))
    return headers


def _other_build(path: str, build_id: str, wanted: str) -> str:
    return f"{path} was not used: its build id is {build_id or 'missing'}, not {wanted or 'known'} as the program's."


def _crc(data: Data) -> int:
    value = 0
    for start in range(0, len(data), _CHUNK_BYTES):
        value = zlib.crc32(data[start : start + _CHUNK_BYTES], value)
    return value
