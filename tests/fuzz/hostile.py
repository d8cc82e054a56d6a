"""Images that no mutation finds: absurd by construction, each aimed at one thing that a reader may forget to bound.

What is small on disk and large when read is written sparsely, into files in memory.
"""

from __future__ import annotations

import lzma
import os
import struct
from collections.abc import Callable

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_PT_LOAD, _PT_DYNAMIC = 1, 2
_SHT_PROGBITS, _SHT_SYMTAB, _SHT_STRTAB = 1, 2, 3
_BASE = 0x400000
_FUNCTION = 0x12  # STB_GLOBAL, STT_FUNC
_CODE = b"\x55\x5d\xc3" + b"\x90" * 13


def image(
    sections: list[tuple[str, int, bytes, int]],
    *,
    code: bytes = _CODE,
    links: dict[int, int] | None = None,
    sizes: dict[int, int] | None = None,
    extra: tuple[tuple[int, int, int], ...] = (),
) -> bytes:
    """An executable with one segment of everything.

    Args:
        sections: Name, type, content and entry size of each, behind a null section and ``.text``.
        code: Of ``.text``.
        links: ``sh_link`` by index.
        sizes: ``sh_size`` by index, where it is to lie.
        extra: Further program headers: type, index of the section they cover, file size (0: that of the section).
    """
    names = b"\0.text\0" + b"".join(name.encode() + b"\0" for name, *_ in sections) + b".shstrtab\0"
    contents = [b"", code, *(content for _, _, content, _ in sections), names]
    kinds = [0, _SHT_PROGBITS, *(kind for _, kind, _, _ in sections), _SHT_STRTAB]
    entry_sizes = [0, 0, *(size for *_, size in sections), 0]
    programs_at = _HEADER.size
    body_at = programs_at + _PROGRAM.size * (1 + len(extra))
    offsets, body = [], bytearray()
    for content in contents:
        body += bytes(-(body_at + len(body)) % 16)
        offsets.append(body_at + len(body))
        body += content
    sections_at = body_at + len(body)
    total = sections_at + _SECTION.size * len(contents)
    text_names = ["", ".text", *(name for name, *_ in sections), ".shstrtab"]
    out = bytearray(_header(sections_at, len(contents), len(contents) - 1, 1 + len(extra)))
    out += _PROGRAM.pack(_PT_LOAD, 5, 0, _BASE, _BASE, total, total, 0x1000)
    for kind, index, size in extra:
        length = size or len(contents[index])
        out += _PROGRAM.pack(kind, 4, offsets[index], _BASE + offsets[index], _BASE + offsets[index], length, length, 8)
    out += body
    for index, name in enumerate(text_names):
        name_at = names.index(name.encode() + b"\0") if name else 0
        size = (sizes or {}).get(index, len(contents[index]))
        address = _BASE + offsets[index] if index else 0
        link = (links or {}).get(index, 0)
        out += _SECTION.pack(name_at, kinds[index], 2, address, offsets[index], size, link, 0, 8, entry_sizes[index])
    return bytes(out)


def symbols(named: list[tuple[int, int, int]]) -> bytes:
    """A symbol table of functions: offset of the name, address, size."""
    return bytes(_SYMBOL.size) + b"".join(_SYMBOL.pack(name, _FUNCTION, 0, 1, at, size) for name, at, size in named)


def _header(sections_at: int, sections: int, names: int, programs: int) -> bytes:
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    return _HEADER.pack(
        ident,
        2,
        62,
        1,
        _BASE,
        _HEADER.size,
        sections_at,
        0,
        _HEADER.size,
        _PROGRAM.size,
        programs,
        _SECTION.size,
        sections,
        names,
    )


def _text_at() -> int:
    return _BASE + (_HEADER.size + _PROGRAM.size + 15) // 16 * 16


def _with_symbols(names: bytes, named: list[tuple[int, int, int]], **more: object) -> bytes:
    tables = [(".symtab", _SHT_SYMTAB, symbols(named), _SYMBOL.size), (".strtab", _SHT_STRTAB, names, 0)]
    return image(tables, links={2: 3}, **more)  # type: ignore[arg-type]


def many_sections() -> bytes:
    """65,535 section headers, all of them a symbol table of the whole file that is its own string table."""
    count = 65_535
    at = _HEADER.size + _PROGRAM.size
    size = at + count * _SECTION.size
    program = _PROGRAM.pack(_PT_LOAD, 5, 0, _BASE, _BASE, size, size, 0x1000)
    section = _SECTION.pack(1, _SHT_SYMTAB, 2, _BASE, 0, size, 7, 0, 8, _SYMBOL.size)
    return _header(at, count, 5, 1) + program + section * count


def overlapping_names() -> bytes:
    """60,000 symbols whose names are the tails of one of a megabyte: 60 GB of names in 2.5 MB."""
    names = b"\0" + b"a" * (1 << 20) + b"\0"
    return _with_symbols(names, [(1 + index * 16, _text_at(), 3) for index in range(60_000)])


def doubling_name() -> bytes:
    """A mangled name whose every part stands for two of the one before: 2^60 characters when it is written out."""
    parts = "S_IiiE" + "".join(f"S_IS{_base36(index)}_S{_base36(index)}_E" for index in range(60))
    names = f"\0_Z1fSt4pairIiiE{parts}\0".encode()
    return _with_symbols(names, [(1, _text_at(), 3)])


def _base36(number: int) -> str:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return digits[number] if number < 36 else digits[number // 36] + digits[number % 36]


def nested_name() -> bytes:
    """A mangled name nested 100,000 deep, and others nested less, which a demangler may follow by recursion."""
    found, names = [], bytearray(b"\0")
    for depth in (100, 1_000, 2_700, 8_000, 100_000):
        for opening in ("P", "N", "I", "Fv", "St4pairI", "DpT_", "X", "L_Z"):
            found.append((len(names), _text_at(), 3))
            names += f"_Z1f{opening * depth}i".encode() + b"\0"
        found.append((len(names), _text_at(), 3))
        names += b"_R" + b"INvC1a" * depth + b"\0"
    return _with_symbols(bytes(names), found)


def huge_string_table() -> bytes:
    """A string table of 4 GiB in a file of a few hundred bytes."""
    tables = [(".symtab", _SHT_SYMTAB, symbols([(1, _text_at(), 3)]), _SYMBOL.size), (".strtab", _SHT_STRTAB, b"\0f\0", 0)]
    return image(tables, links={2: 3}, sizes={3: 4 << 30, 2: 1 << 63})


def cyclic_links() -> bytes:
    """A symbol table that is its own string table, and an entry size of nothing."""
    return image([(".symtab", _SHT_SYMTAB, symbols([(1, _text_at(), 3)] * 50), 0)], links={2: 2})


def bomb() -> bytes:
    """MiniDebugInfo of 200 kB that unpacks to 1.4 GB."""
    packed = lzma.compress(bytes(1 << 26), preset=0) * 22
    return image([(".gnu_debugdata", _SHT_PROGBITS, packed, 0)])


def cyclic_hash() -> bytes:
    """DT_GNU_HASH whose chains never end, with 2^32 - 1 buckets, in tables that lie over each other."""
    at = _BASE + _first_body_at(2)
    gnu_hash = struct.pack("<IIII", 0xFFFFFFFF, 1, 1, 6) + b"\xfe" * (1 << 20)
    tags = [(0x6FFFFEF5, at), (5, at), (6, at), (10, 1 << 40), (11, 24), (7, at), (8, 1 << 20), (9, 24), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *tag) for tag in tags)
    sections = [(".gnu.hash", 0x6FFFFFF6, gnu_hash, 0), (".dynamic", 6, dynamic, 16)]
    return image(sections, extra=((_PT_DYNAMIC, 3, 0),))


def _first_body_at(programs: int) -> int:
    """Where the section behind ``.text`` lies, with so many program headers."""
    text_at = (_HEADER.size + _PROGRAM.size * programs + 15) // 16 * 16
    return (text_at + len(_CODE) + 15) // 16 * 16


def tangled_code() -> bytes:
    """A function of 2 MB in which every instruction is a conditional jump to some other one."""
    count, size = 349_000, 6
    code = (
        b"".join(b"\x0f\x84" + struct.pack("<i", (((index * 7919) % count) - index - 1) * size) for index in range(count))
        + b"\xc3"
    )
    return _with_symbols(b"\0tangled\0", [(1, _text_at(), len(code))], code=code)


def large_tables() -> bytes:
    """A function of a hundred switches, each with a table that has no end but the file's."""
    switch = b"\x48\x8d\x15\xf9\xff\xff\xff" + b"\x48\x63\x04\xba\x48\x01\xd0\xff\xe0"  # lea, movslq, add, jmp *%rax
    code = switch * 100 + b"\xc3" + bytes(1 << 20)
    return _with_symbols(b"\0tables\0", [(1, _text_at(), len(code))], code=code)


def nested_functions() -> bytes:
    """20,000 functions, each of which reaches from its own byte to the end."""
    code = b"\x90" * 20_000 + b"\xc3"
    return _with_symbols(b"\0f\0", [(1, _text_at() + index, 20_001 - index) for index in range(20_000)], code=code)


def sparse(size_bytes: int) -> Callable[[], int]:
    """A file of so many bytes of which the first page is there: an image with symbol and string tables of half of it each."""

    def made() -> int:
        half = size_bytes // 2
        start = image(
            [(".symtab", _SHT_SYMTAB, b"", _SYMBOL.size), (".strtab", _SHT_STRTAB, b"", 0)],
            links={2: 3},
            sizes={2: half, 3: half},
        )
        fd = os.memfd_create("sparse", os.MFD_CLOEXEC)
        os.write(fd, start)
        os.ftruncate(fd, size_bytes)
        return fd

    return made


def in_memory(content: Callable[[], bytes]) -> Callable[[], int]:
    """An image as an open file."""

    def made() -> int:
        fd = os.memfd_create("hostile", os.MFD_CLOEXEC)
        view = memoryview(content())
        while view:
            view = view[os.write(fd, view) :]
        return fd

    return made


ABSURD: dict[str, tuple[Callable[[], int], str]] = {
    "65,535 sections": (in_memory(many_sections), "main"),
    "60 GB of names": (in_memory(overlapping_names), "a"),
    "a doubling name": (in_memory(doubling_name), "f"),
    "nested names": (in_memory(nested_name), "f"),
    "a string table of 4 GiB": (in_memory(huge_string_table), "f"),
    "cyclic links": (in_memory(cyclic_links), "f"),
    "a decompression bomb": (in_memory(bomb), "main"),
    "a cyclic hash table": (in_memory(cyclic_hash), "main"),
    "tangled code": (in_memory(tangled_code), "tangled"),
    "endless jump tables": (in_memory(large_tables), "tables"),
    "nested functions": (in_memory(nested_functions), "f"),
    "1 GiB of nothing": (sparse(1 << 30), "main"),
    "8 TiB of nothing": (sparse(8 << 40), "main"),
}
"""How each is made, and the function that is asked for."""
