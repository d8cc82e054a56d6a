"""However it was laid out: every function that another reader (LIEF) sees, with its address, its size and its place.

Other linkers than GNU's are in the corpus, which builds with each of them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import lief
import pytest
from support import elf_images
from support.debug_images import drop_section_headers

from coral.elf.program import Program
from coral.elf.symbols import Function

_BUILDS = {
    "pie": (),
    "no-pie": ("-no-pie",),
    "static": ("-static",),
    "static-pie": ("-static-pie",),
    "several executable segments": ("-no-pie", "-Wl,-z,noseparate-code", "-Wl,-T,{script}"),
    "no build id": ("-Wl,--build-id=none",),
    "patchable entries": ("-fpatchable-function-entry=5,2",),
    "profiling": ("-pg", "-mfentry"),
    "compressed DWARF": ("-g", "-gz=zlib"),
    "split DWARF": ("-g", "-gsplit-dwarf"),
    "sections": ("-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-g3"),
}
_SCRIPT = """
PHDRS { headers PT_PHDR PHDRS; interpreter PT_INTERP; first PT_LOAD FILEHDR PHDRS; other PT_LOAD FLAGS(5); data PT_LOAD;
  dynamic PT_DYNAMIC; frames PT_GNU_EH_FRAME; }
SECTIONS {
  . = 0x400000 + SIZEOF_HEADERS;
  .interp : { *(.interp) } :first :interpreter
  .hash : { *(.hash) *(.gnu.hash) } :first
  .dynsym : { *(.dynsym) } .dynstr : { *(.dynstr) } .gnu.version : { *(.gnu.version) } .gnu.version_r : { *(.gnu.version_r) }
  .rela.dyn : { *(.rela.dyn) } .rela.plt : { *(.rela.plt) }
  .init : { KEEP(*(.init)) } .plt : { *(.plt*) } .fini : { KEEP(*(.fini)) }
  .rodata : { *(.rodata*) } .eh_frame_hdr : { *(.eh_frame_hdr) } :first :frames
  .eh_frame : { KEEP(*(.eh_frame)) } :first
  . = 0x7000000 + (. & 0xfff);
  .text : { *(.text*) } :other
  . = 0x9000000 + (. & 0xfff);
  .init_array : { *(.init_array) } :data
  .fini_array : { *(.fini_array) }
  .dynamic : { *(.dynamic) } :data :dynamic
  .got : { *(.got*) } :data
  .data : { *(.data*) } .bss : { *(.bss*) }
}
"""


@pytest.mark.parametrize("build", list(_BUILDS))
def test_every_function_of_every_layout_is_found(tmp_path: Path, build: str) -> None:
    """Names, addresses, sizes and file offsets are those that another reader finds."""
    script = tmp_path / "script"
    script.write_text(_SCRIPT)
    flags = [flag.format(script=script) for flag in _BUILDS[build]]
    path = elf_images.gcc(tmp_path / "shapes", elf_images.SOURCES / "shapes.c", "-O2", "-rdynamic", *flags)
    image = elf_images.program(path)
    expected = lief.ELF.parse(str(path))
    listed = {*_functions(expected.symtab_symbols), *_functions(expected.dynamic_symbols)}
    found = {(each.name.partition("@")[0], int(each.vaddr)) for each in _all(image)}
    assert {(name, vaddr) for name, vaddr, _ in listed} == found
    by_place = {(each.name.partition("@")[0], int(each.vaddr)): each for each in _all(image)}
    for name, vaddr, size in listed:
        function = by_place[name, vaddr]
        assert size in (0, function.size_bytes), name
        assert image.file.file_offset(vaddr) == expected.virtual_address_to_offset(vaddr), name
        assert image.file.executable(vaddr) is not None, name
    for name in ("leaf", "switched", "tail"):
        plan = elf_images.plan_of(image, name)
        assert (plan.reason, len(plan.entries), bool(plan.exits)) == ("", 1, True)
        for site in plan.sites:
            assert path.read_bytes()[site.offset : site.offset + len(site.original)] == site.original


def test_sections_are_not_needed(tmp_path: Path) -> None:
    """A program that lost its section headers keeps its frames, its identity and its dynamic symbols."""
    path = elf_images.gcc(tmp_path / "shapes", elf_images.SOURCES / "shapes.c", "-O2", "-rdynamic", "-Wl,--build-id")
    whole = elf_images.program(path)
    drop_section_headers(path)
    bare = elf_images.program(path)
    assert (bare.file.headers.sections, bare.file.info.image_id) == ((), whole.file.info.image_id)
    where = whole.symbols.by_name["switched"][0].vaddr
    assert bare.frames.covering(where) == whole.frames.covering(where) is not None
    assert elf_images.plan_of(bare, "switched") == elf_images.plan_of(whole, "switched")


def test_frames_are_found_without_their_index(tmp_path: Path) -> None:
    """Static programs of Debian's gcc have .eh_frame and no .eh_frame_hdr."""
    path = elf_images.gcc(tmp_path / "shapes", elf_images.SOURCES / "shapes.c", "-O2", "-static")
    image = elf_images.program(path)
    dumped = subprocess.run(["readelf", "--debug-dump=frames", str(path)], check=True, capture_output=True, text=True)
    ranges = {
        tuple(int(address, 16) for address in line.rpartition("pc=")[2].split(".."))
        for line in dumped.stdout.splitlines()
        if " FDE " in line
    }
    assert len(ranges) > 500
    found = {start: image.frames.covering(start) for start, _ in ranges}
    assert {(start, int(range_.end)) for start, range_ in found.items() if range_ is not None} == ranges


def _functions(symbols: Iterable[lief.ELF.Symbol]) -> set[tuple[str, int, int]]:
    kinds = (lief.ELF.Symbol.TYPE.FUNC, lief.ELF.Symbol.TYPE.GNU_IFUNC)
    return {
        (str(each.name).partition("@")[0], each.value, each.size)
        for each in symbols
        if each.type in kinds and each.shndx and each.value and each.name
    }


def _all(image: Program) -> list[Function]:
    return [function for functions in image.symbols.by_name.values() for function in functions]
