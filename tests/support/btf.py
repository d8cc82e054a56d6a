"""A reader of the BTF in an object file, as far as struct layouts need it (Documentation/bpf/btf.rst)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import lief

_KIND_STRUCT, _KIND_ARRAY, _KIND_ENUM, _KIND_FUNC_PROTO, _KIND_VAR, _KIND_DATASEC = 4, 3, 6, 13, 14, 15
_KIND_INT, _KIND_UNION, _KIND_DECL_TAG, _KIND_ENUM64 = 1, 5, 17, 19


def struct_layouts(path: Path) -> dict[str, tuple[int, dict[str, int]]]:
    """Size in bytes, and offset in bytes of each member, of every named struct in the object."""
    section = lief.ELF.parse(str(path)).get_section(".BTF")
    data = bytes(section.content)
    header_length, types_at, types_length, strings_at = struct.unpack_from("<4xIIII", data)
    strings = data[header_length + strings_at :]

    def name(offset: int) -> str:
        return strings[offset : strings.index(b"\0", offset)].decode()

    layouts = {}
    for kind, name_at, count, size, body in _types(data[header_length + types_at :][:types_length]):
        if kind == _KIND_STRUCT and name_at:
            members = struct.iter_unpack("<III", body[: 12 * count])
            layouts[name(name_at)] = (size, {name(member): bits // 8 for member, _, bits in members})
    return layouts


def _types(data: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    position = 0
    while position < len(data):
        name_at, info, size = struct.unpack_from("<III", data, position)
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        body = data[position + 12 :]
        yield kind, name_at, count, size, body
        tail = {
            _KIND_INT: 4,
            _KIND_ARRAY: 12,
            _KIND_STRUCT: 12 * count,
            _KIND_UNION: 12 * count,
            _KIND_ENUM: 8 * count,
            _KIND_FUNC_PROTO: 8 * count,
            _KIND_VAR: 4,
            _KIND_DATASEC: 12 * count,
            _KIND_DECL_TAG: 4,
            _KIND_ENUM64: 12 * count,
        }.get(kind, 0)
        position += 12 + tail
