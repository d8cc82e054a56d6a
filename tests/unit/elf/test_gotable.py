"""What Go's own table of functions says, against the symbol table of the same program."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from support import elf_images

from coral.elf.program import Program
from coral.elf.symbols import Function
from coral.model.errors import FailedPrecondition, NotFound
from coral.model.site import Method, Pairing

_ONLY_SYMBOLS = frozenset(("runtime.text", "runtime.etext", "go:textfipsstart", "go:textfipsend", "local.moduledata.init"))


@pytest.fixture(scope="module", params=["exe", "pie"])
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with its symbols."""
    return elf_images.go_build(tmp_path_factory.mktemp("table") / "plain", f"-buildmode={request.param}")


def _stripped(path: Path) -> Path:
    output = path.with_name(f"{path.name}-stripped")
    subprocess.run(["strip", "-o", str(output), str(path)], check=True)
    return output


def _without_sections(path: Path) -> Path:
    """A copy in which nothing says where sections are: e_shoff, e_shnum, e_shstrndx of the ELF header are 0."""
    data = bytearray(_stripped(path).read_bytes())
    data[40:48] = bytes(8)
    data[60:64] = bytes(4)
    output = path.with_name(path.name + "-no-sections")
    output.write_bytes(data)
    return output


def _named(image: Program) -> dict[int, tuple[str, int]]:
    """Name and size of each function, by address, without what is only ever a symbol."""
    found = {}
    for functions in image.symbols.by_name.values():
        for function in functions:
            if function.name not in _ONLY_SYMBOLS and image.go.at(function.vaddr) is not None:
                found[int(function.vaddr)] = (function.name.removesuffix(".abi0"), function.size_bytes)
    return found


@pytest.mark.parametrize("how", [_stripped, _without_sections])
def test_a_stripped_program_has_the_same_functions(plain: Path, how: object) -> None:
    """Every function has its address, name and size from Go's own table, also where no section header says where that is."""
    assert callable(how)
    found = _named(elf_images.program(how(plain)))
    assert len(found) > 1000
    assert found == _named(elf_images.program(plain))


def test_a_stripped_program_is_probed_at_the_same_sites(plain: Path) -> None:
    """Plans by Go's own table are those by symbols, also of generics and of assembly behind a wrapper."""
    whole, stripped = elf_images.program(plain), elf_images.program(_stripped(plain))
    for name in ("main.leaf", "recovers", "main.largest", "main.largest[int]", "main.(*counter).add", "runtime.osyield.abi0"):
        assert elf_images.plan_of(stripped, name).sites == elf_images.plan_of(whole, name).sites, name


def test_text_is_where_the_runtime_says_although_the_header_no_longer_does(plain: Path) -> None:
    """Since Go 1.26 only moduledata has the start of the text."""
    image = elf_images.program(plain)
    assert image.go.header is not None
    assert image.go.header.text is None
    (text,) = image.symbols.by_name["runtime.text"]
    assert image.go.text == text.vaddr


@pytest.mark.parametrize(("magic", "when"), [(0xFFFFFFFB, "before Go 1.16"), (0xFFFFFFFA, "with Go 1.16 or 1.17")])
def test_the_tables_of_older_versions_are_refused(plain: Path, magic: int, when: str) -> None:
    """Their layout is another one, and so is how they pass arguments."""
    data = bytearray(_stripped(plain).read_bytes())
    place = elf_images.program(plain).go.header
    assert place is not None
    offset = elf_images.program(plain).file.file_offset(place.vaddr)
    assert offset is not None
    old = plain.with_name(f"old-{magic:x}")
    image = elf_images.program(_stripped(plain))
    assert image.go.header is not None
    at = image.file.file_offset(image.go.header.vaddr)
    assert at is not None
    data[at : at + 4] = struct.pack("<I", magic)
    old.write_bytes(data)
    with pytest.raises(FailedPrecondition, match=f"was built {when}: its functions take arguments from the stack"):
        elf_images.plan_of(elf_images.program(old), "main.leaf")


def test_a_damaged_table_is_none(plain: Path) -> None:
    """An index that is not sorted, or leads out of the table, is not believed, and that is said."""
    path = _stripped(plain)
    image = elf_images.program(path)
    header = image.go.header
    assert header is not None
    at = image.file.file_offset(header.vaddr)
    assert at is not None
    for damage in (b"\xff\xff\xff\xff", b"\0\0\0\0"):
        data = bytearray(path.read_bytes())
        data[at + header.functions + 16 : at + header.functions + 20] = damage
        damaged = path.with_name(f"damaged-{damage.hex()}")
        damaged.write_bytes(data)
        bad = elf_images.program(damaged)
        assert not bad.go
        assert bad.go.functions() == []
        with pytest.raises(NotFound, match="names no functions"):
            elf_images.plan_of(bad, "main.leaf")


def test_a_function_of_c_that_the_table_has_is_not_go(plain: Path) -> None:
    """Where Go's linker takes in C, nothing but names is known of its functions: they pair by the stack pointer."""
    path = _stripped(plain)
    image = elf_images.program(path)
    (leaf,) = image.symbols.by_name["main.leaf"]
    header = image.go.header
    assert header is not None
    table = image.file.file_offset(header.vaddr)
    assert table is not None
    data = bytearray(path.read_bytes())
    (entry,) = (
        table + header.functions + offset
        for at, offset in struct.iter_unpack("<II", header.data[header.functions : header.functions + 8 * header.count])
        if at == leaf.vaddr - image.go.text
    )
    data[entry + 16 : entry + 28] = bytes(12)  # pcsp, pcfile, pcln
    foreign = path.with_name("foreign")
    foreign.write_bytes(data)
    plan = elf_images.plan_of(elf_images.program(foreign), "main.leaf")
    assert (plan.language, plan.pairing, plan.method) == ("c", Pairing.STACK_POINTER, Method.RET_SITES)


def test_of_two_conventions_of_one_name_the_compiled_one_has_it(plain: Path) -> None:
    """What Go's linker calls NAME.abi0 is called so without its symbols too."""
    image = elf_images.program(_stripped(plain))
    both: dict[str, list[Function]] = {
        name: image.symbols.by_name[name] for name in ("runtime.osyield", "runtime.osyield.abi0", "runtime.newproc.abi0")
    }
    known = {name: [image.go.at(function.vaddr) for function in functions] for name, functions in both.items()}
    assert {name: [each is not None and each.assembly for each in found] for name, found in known.items()} == {
        "runtime.osyield": [False],
        "runtime.osyield.abi0": [True],
        "runtime.newproc.abi0": [False],
    }


_SMALLEST = """
    .type last, @function
last:
    ret
    .size last, .-last
behind:
    .section .gopclntab, "aw", @progbits
    .balign 32
table:
    .long 0xfffffff0
    .byte 0, 0, 1, 8
    .quad 1, 1, last
    .quad names - table, units - table, files - table, values - table, functions - table
    .quad 0
names:
    .asciz "main.last"
units:
    .long 0
files:
    .long 0
values:
    .long 0, 0
functions:
    .long 0, row - functions, behind - last
row:
    .long 0, 0, 0, 0, 4, 4, 4, 0, 0
    .byte 0, 0, 0, 0
"""
"""A table of Go 1.18 or 1.19, whose only function has neither pcdata nor funcdata: its row ends with the table."""


def test_the_last_row_of_an_older_table_may_be_the_end_of_it(tmp_path: Path) -> None:
    """Rows are four bytes shorter before Go 1.20, which tell the line that a function starts at."""
    image = elf_images.assembly(tmp_path, _SMALLEST)
    (function,) = image.go.functions()
    assert (function.name, function.size_bytes) == ("main.last", 1)
    known = image.go.at(function.vaddr)
    assert known is not None
    assert not known.assembly
