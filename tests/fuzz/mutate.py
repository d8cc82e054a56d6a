"""Makes mutants: damage where it hurts, in the tables that readers follow.

Where the tables are is taken from the intact image by the plainest reading there is, not by Coral's.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from functools import cache

from fuzz.seeds import Seed

_HEADER_BYTES, _PROGRAM_BYTES, _SECTION_BYTES = 64, 56, 64
_TABLES = frozenset(
    (
        *(
            ".symtab",
            ".dynsym",
            ".strtab",
            ".dynstr",
            ".shstrtab",
            ".dynamic",
            ".rela.dyn",
            ".rela.plt",
            ".relr.dyn",
            ".gnu.hash",
        ),
        *(
            ".gnu.version",
            ".gnu.version_r",
            ".gnu.version_d",
            ".eh_frame",
            ".eh_frame_hdr",
            ".gcc_except_table",
            ".gopclntab",
        ),
        *(".data.rel.ro.gopclntab", ".go.buildinfo", ".go.module", ".noptrdata", ".note.gnu.build-id", ".note.go.buildid"),
        *(
            ".gnu_debugdata",
            ".gnu_debuglink",
            ".plt",
            ".plt.sec",
            ".plt.got",
            ".got",
            ".got.plt",
            ".rodata",
            ".text",
            ".hash",
        ),
    )
)
_SIZES = (1, 2, 4, 8)
_LONG_RUN = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A part of an image that means something."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A damaged image.

    Attributes:
        seed: What it was.
        content: What it is.
        debug: The file with its symbols, damaged or not; empty when there is none.
        damage: What was done, for people.
    """

    seed: Seed
    content: bytes
    debug: bytes
    damage: tuple[str, ...]


def mutant(randomness: random.Random, seeds: list[Seed]) -> Mutant:
    """A mutant of one of the seeds, the same for the same state of ``randomness``."""
    seed = randomness.choices(seeds, [each.weight for each in seeds])[0]
    content, debug = bytearray(seed.content), bytearray(seed.debug)
    damage = []
    for _ in range(randomness.choice((1, 1, 1, 2, 3, 8))):
        target = debug if debug and randomness.random() < 0.5 else content
        damage.append(_damage(randomness, target, regions(seed.debug if target is debug else seed.content), seeds))
    return Mutant(seed=seed, content=bytes(content), debug=bytes(debug), damage=tuple(damage))


def mutated_name(randomness: random.Random, names: list[str]) -> str:
    """A name that no compiler would write."""
    name = list(randomness.choice(names))
    for _ in range(randomness.randint(1, 6)):
        at = randomness.randrange(len(name) + 1)
        kind = randomness.randrange(5)
        if kind == 0:
            name[at : at + 1] = chr(randomness.choice((*range(33, 127), 0x1B, 0x202E, 0xFFFD)))
        elif kind == 1:
            del name[at : at + randomness.randint(1, 8)]
        elif kind == 2:
            other = randomness.choice(names)
            name[at:at] = other[randomness.randrange(len(other)) :]
        elif kind == 3:
            name[at:at] = randomness.choice(
                ("S_", "T_", "N", "I", "X", "99999999999", "E", "St", "<", "(", "{", "::", "K", "B_")
            )
        else:
            name[at:at] = (name[at:] or ["P"])[: randomness.randint(1, 4)] * randomness.choice((2, 50, 3000))
    return "".join(name)


@cache
def regions(content: bytes) -> tuple[Region, ...]:
    """The headers and tables of an intact image."""
    fields = struct.unpack_from("<16sHHIQQQIHHHHHH", content)
    programs_at, sections_at, programs, sections, names_at = fields[5], fields[6], fields[10], fields[12], fields[13]
    found = [
        Region(name="ELF header", start=0, end=_HEADER_BYTES),
        Region(name="program headers", start=programs_at, end=programs_at + programs * _PROGRAM_BYTES),
    ]
    for index in range(programs):
        kind, _, start, _, _, size, *_ = struct.unpack_from("<IIQQQQQQ", content, programs_at + index * _PROGRAM_BYTES)
        if kind in (2, 3, 4, 0x6474E550) and size:
            found.append(Region(name=f"segment of type {kind:#x}", start=start, end=start + size))
    if sections:
        found.append(Region(name="section headers", start=sections_at, end=sections_at + sections * _SECTION_BYTES))
        headers = [struct.unpack_from("<IIQQQQ", content, sections_at + index * _SECTION_BYTES) for index in range(sections)]
        strings = headers[names_at][4]
        for name, kind, _, _, start, size in headers:
            text = content[strings + name : content.index(b"\0", strings + name)].decode()
            if text in _TABLES and kind != 8 and size:
                found.append(Region(name=text, start=start, end=start + size))
    return tuple(found)


def _damage(randomness: random.Random, content: bytearray, where: tuple[Region, ...], seeds: list[Seed]) -> str:
    region = randomness.choice(where)
    end = min(region.end, len(content))
    if region.start >= end:
        return "nothing, for it was cut off already"
    at = randomness.randrange(region.start, end)
    kind = randomness.choices(
        ("bits", "number", "number", "fill", "copy", "splice", "cut", "grow", "run"), (4, 6, 6, 1, 2, 1, 1, 1, 1)
    )[0]
    if kind == "bits":
        for _ in range(randomness.choice((1, 1, 4, 32))):
            content[randomness.randrange(region.start, end)] ^= 1 << randomness.randrange(8)
    elif kind == "number":
        _number(randomness, content, region, at)
    elif kind == "fill":
        length = randomness.choice((4, 16, 64, end - at))
        length = min(length, end - at)
        content[at : at + length] = (randomness.choice((b"\0", b"\xff", b"\x80")) * length) if length else b""
    elif kind == "copy":
        length = randomness.choice((8, 24, 56, 64, 200))
        source = randomness.randrange(region.start, end)
        piece = content[source : source + length]
        content[at : at + len(piece)] = piece
    elif kind == "splice":
        other = randomness.choice(seeds)
        foreign = randomness.choice(regions(other.content))
        piece = other.content[foreign.start : foreign.end][: end - at]
        content[at : at + len(piece)] = piece
    elif kind == "cut":
        del content[randomness.choice((at, region.start, end, randomness.randrange(len(content)))) :]
    elif kind == "grow":
        content += randomness.randbytes(randomness.choice((1, 100, 70_000)))
    else:
        length = min(_LONG_RUN, len(content) - at)
        content[at : at + length] = randomness.choice((b"\x80", b"\xff", b"\xe9", b"\x90", b"\x0f")) * length
    return f"{kind} in {region.name} at {at:#x}"


def _number(randomness: random.Random, content: bytearray, region: Region, at: int) -> None:
    """Writes a number that somebody may have forgotten to think of over an aligned field."""
    size = randomness.choice(_SIZES)
    at -= (at - region.start) % size
    bits = 8 * size
    old = int.from_bytes(content[at : at + size], "little")
    value = randomness.choice(
        (
            *(0, 1, 2, (1 << bits) - 1, (1 << bits - 1) - 1, 1 << bits - 1, 0xFFFF, 0xFF00, 0x10000),
            *(old + 1, old - 1, old * 2, old << 8, ~old, len(content), len(content) - 1, at, region.start, region.end),
            *(randomness.getrandbits(bits), randomness.randrange(len(content))),
        )
    )
    content[at : at + size] = (value % (1 << bits)).to_bytes(size, "little")
