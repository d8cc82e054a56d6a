"""The table of functions: what begins where, what covers what, and how long a large one takes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from support import elf_images

from coral.elf.dynamic import Version
from coral.elf.symbols import Function, Import, SymbolTable
from coral.elf.symtab import STT_FILE, STT_FUNC, STT_GNU_IFUNC, SYMBOL, Symbols
from coral.model.addresses import Vaddr
from coral.model.errors import FailedPrecondition

_GLOBAL = 1 << 4


def _table(*rows: tuple[str, int, int, int, int]) -> Symbols:
    """A symbol table of (name, info, section, value, size)."""
    strings = b"\0" + b"".join(row[0].encode() + b"\0" for row in rows)
    table = np.zeros(len(rows), SYMBOL)
    at = 1
    for index, (name, info, section, value, size) in enumerate(rows):
        table[index] = (at, info, 0, section, value, size)
        at += len(name.encode()) + 1
    return Symbols.of(table.tobytes(), strings)


def test_a_table_is_read_as_the_standard_says() -> None:
    """Static functions belong to the file before them; what is undefined, nameless or no function is none."""
    symbols = SymbolTable()
    table = _table(
        ("a.c", STT_FILE, 0xFFF1, 0, 0),
        ("work", STT_FUNC, 1, 0x100, 16),
        ("b.c", STT_FILE, 0xFFF1, 0, 0),
        ("work", STT_FUNC, 1, 0x200, 16),
        ("data", 1, 2, 0x900, 8),
        ("main", STT_FUNC | _GLOBAL, 1, 0x300, 16),
        ("memcpy", STT_GNU_IFUNC | _GLOBAL, 1, 0x400, 16),
        ("puts", STT_FUNC | _GLOBAL, 0, 0, 0),
        ("", STT_FUNC, 1, 0x500, 16),
    )
    symbols.add_table(".symtab", table)
    assert symbols.by_name == {
        "work": [
            Function(name="work", vaddr=Vaddr(0x100), size_bytes=16, local=True, file="a.c"),
            Function(name="work", vaddr=Vaddr(0x200), size_bytes=16, local=True, file="b.c"),
        ],
        "main": [Function(name="main", vaddr=Vaddr(0x300), size_bytes=16)],
        "memcpy": [Function(name="memcpy", vaddr=Vaddr(0x400), size_bytes=16, indirect=True)],
    }
    assert (symbols.sources, symbols.imports) == ((".symtab",), {})


def test_tables_are_merged_without_repeating() -> None:
    """What the second table says again is not there twice; a table that adds nothing is no source."""
    symbols = SymbolTable()
    both = _table(("main", STT_FUNC | _GLOBAL, 1, 0x300, 16), ("puts", STT_FUNC | _GLOBAL, 0, 0, 0))
    symbols.add_table(".symtab", both)
    symbols.add_table(".dynsym", both, {1: Version("GLIBC_2.2.5", "libc.so.6", False)})
    assert [len(functions) for functions in symbols.by_name.values()] == [1]
    assert (symbols.sources, symbols.imports) == ((".symtab",), {"puts": Import("puts", "libc.so.6")})


def test_functions_that_were_folded_into_one_have_all_names() -> None:
    """Linkers give identical functions one address; the name in messages is a global and short one."""
    symbols = SymbolTable()
    names = (("long_name", _GLOBAL), ("first", _GLOBAL), ("own", 0))
    symbols.add_table(".symtab", _table(*((name, STT_FUNC | flags, 1, 0x100, 16) for name, flags in names)))
    assert [function.name for function in symbols.at(0x100)] == ["long_name", "first", "own"]
    assert (symbols.name_at(0x100), symbols.name_at(0x104)) == ("first", "")


def test_what_covers_an_address_and_what_comes_next() -> None:
    """Ranges may nest, as labels of assembly do."""
    symbols = SymbolTable()
    rows = (("outer", 0x100, 64), ("inner", 0x110, 8), ("next", 0x200, 4))
    symbols.add_table(".symtab", _table(*((name, STT_FUNC, 1, at, size) for name, at, size in rows)))
    covering = {at: found.name if (found := symbols.covering(at)) else None for at in (0xFF, 0x100, 0x112, 0x120, 0x140)}
    assert covering == {0xFF: None, 0x100: "outer", 0x112: "inner", 0x120: "outer", 0x140: None}
    assert [symbols.next_start(at) for at in (0, 0x100, 0x110, 0x200)] == [0x100, 0x110, 0x200, None]
    assert [function.name for function in symbols.inside(0x100, 0x140)] == ["inner"]
    symbols.add_functions("more", [Function(name="late", vaddr=Vaddr(0x180), size_bytes=1)])
    assert symbols.next_start(0x110) == 0x180


def test_a_hundred_thousand_functions_take_a_second_or_two() -> None:
    """A binary of 100 MB has so many; measured as processor time, which a busy machine does not lengthen."""
    count = 100_000
    strings = b"\0" + b"".join(b"_ZN4name%07dEv\0" % index for index in range(count))
    table = np.zeros(count, SYMBOL)
    table["name"] = 1 + 18 * np.arange(count)
    table["info"], table["section"], table["size"] = STT_FUNC | _GLOBAL, 1, 32
    table["value"] = 0x1000 + 32 * np.arange(count)
    symbols = SymbolTable()
    start = time.process_time()
    symbols.add_table(".symtab", Symbols.of(table.tobytes(), strings))
    symbols.add_table(".dynsym", Symbols.of(table.tobytes(), strings), {})
    assert time.process_time() - start < 3
    assert (len(symbols), symbols.name_at(0x1000 + 32 * 77)) == (count, "_ZN4name0000077Ev")


def test_many_names_of_one_function_take_no_longer_than_others() -> None:
    """A hostile table may have a hundred thousand names for one address, and say each of them twice."""
    symbols = SymbolTable()
    functions = [Function(name=f"n{index}", vaddr=Vaddr(0x100), size_bytes=1) for index in range(100_000)]
    start = time.process_time()
    symbols.add_functions("a", functions)
    symbols.add_functions("b", functions)
    assert time.process_time() - start < 3
    assert (len(symbols), len(symbols.at(0x100)), symbols.sources) == (100_000, 100_000, ("a",))


def test_names_that_claim_to_be_endless_are_refused() -> None:
    """Symbols may share the bytes of their names, so that a small file can ask for terabytes of them."""
    table = np.zeros(10_000, SYMBOL)
    table["name"], table["info"], table["section"] = 1, STT_FUNC, 1
    table["value"] = np.arange(1, 10_001)
    symbols = SymbolTable()
    with pytest.raises(FailedPrecondition, match="more than 256 MiB of names"):
        symbols.add_table(".symtab", Symbols.of(table.tobytes(), b"\0" + b"x" * 60_000 + b"\0"))


def test_two_names_of_one_function_are_planned_alike(tmp_path: Path) -> None:
    """Whichever name is asked for, the sites are the same."""
    body = """
        function one
        .globl two
        .type two, @function
        two:
        push %rbp
        pop %rbp
        ret
        end one
        end two
    """
    image = elf_images.assembly(tmp_path, body)
    one, two = ([(site.offset, site.kind) for site in elf_images.plan_of(image, name).sites] for name in ("one", "two"))
    assert one == two
    assert len(one) == 2
