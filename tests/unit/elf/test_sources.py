"""Where the names of functions come from: the image's own tables, what is packed into it, and files beside it."""

from __future__ import annotations

import lzma
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support import elf_images
from support.debug_images import drop_section_headers, embed, packed_symbols, place, program_with, split

from coral.elf.plan import plan
from coral.elf.symbols import Import
from coral.model.errors import FailedPrecondition, NotFound
from coral.model.site import Method

_SOURCE = """
#include <math.h>
#include <stdio.h>
volatile int sink;
__attribute__((noinline, noclone)) static int hidden(int a) { return a * 3 + sink; }
__attribute__((noinline, noclone)) int shown(int a) { return hidden(a) + 1; }
int same(int a) __attribute__((alias("shown")));
int main(int argc, char **argv) { return printf("%d %f %s\\n", same(argc), cos(argc), argv[0]) < 0; }
"""


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Path]:
    """Compiles a program with a static function and one with two names."""
    source = tmp_path / "program.c"
    source.write_text(_SOURCE)

    def built(*flags: str) -> Path:
        defaults = ("-O1", "-g", "-rdynamic", "-lm", "-Wl,--build-id")
        return elf_images.gcc(tmp_path / "program", source, *defaults, *flags)

    return built


def test_a_debug_file_of_the_same_build_names_what_was_stripped(build: Callable[..., Path], tmp_path: Path) -> None:
    """The plan is that of the program with its symbols, down to the bytes."""
    program = build()
    whole = elf_images.program(program)
    expected = plan(whole, "hidden")
    debug = split(program, place(tmp_path / "debug", whole.file.info.build_id))
    found = program_with(program, debug)
    assert (found.file.info.stripped, found.symbols.sources) == (True, (".dynsym", str(debug)))
    assert plan(found, "hidden") == expected
    assert found.symbols.by_name["hidden"] == whole.symbols.by_name["hidden"]
    assert {each.name for each in found.symbols.at(found.symbols.by_name["same"][0].vaddr)} == {"shown", "same"}
    assert set(found.symbols.by_name) == set(whole.symbols.by_name)


def test_a_debug_file_of_another_build_is_refused_and_that_is_said(build: Callable[..., Path], tmp_path: Path) -> None:
    """The symbols of another build would put probes into other functions."""
    other_id = elf_images.program(build("-O2")).file.info.build_id
    other = split(build("-O2"), tmp_path / "other.debug")
    program = build()
    build_id = elf_images.program(program).file.info.build_id
    split(program, tmp_path / "right.debug")
    found = program_with(program, other)
    assert found.symbols.sources == (".dynsym",)
    assert found.symbols.notes == (f"{other} was not used: its build id is {other_id}, not {build_id} as the program's.",)
    with pytest.raises(NotFound) as missing:
        plan(found, "hidden")
    assert found.symbols.notes[0] in missing.value.hint
    # A right one behind it is used, and wrong ones after that are not even looked at.
    found = program_with(program, other, tmp_path / "right.debug", other)
    assert (found.symbols.sources, len(found.symbols.notes)) == ((".dynsym", str(tmp_path / "right.debug")), 1)


def test_a_linked_debug_file_counts_by_its_crc(build: Callable[..., Path], tmp_path: Path) -> None:
    """With or without a build id; a single changed byte makes it another file."""
    for flags in ((), ("-Wl,--build-id=none",)):
        program = build(*flags)
        expected = plan(elf_images.program(program), "hidden")
        debug = split(program, tmp_path / "program.debug", link=True)
        found = program_with(program, debug, linked=True)
        assert found.file.info.debug_link == "program.debug"
        assert (found.symbols.sources, found.symbols.notes) == ((".dynsym", str(debug)), ())
        assert plan(found, "hidden") == expected
        with debug.open("ab") as file:
            file.write(b"\0")
        found = program_with(program, debug, linked=True)
        assert found.symbols.sources == (".dynsym",)
        assert len(found.symbols.notes) == 1
        assert re.search(r"program\.debug was not used: its CRC is not [0-9a-f]{8}, as", found.symbols.notes[0])


def test_a_file_that_is_no_debug_file_is_refused(build: Callable[..., Path], tmp_path: Path) -> None:
    """Whatever lies where a debug file should be costs a sentence."""
    program = build()
    split(program, tmp_path / "right.debug")
    (tmp_path / "text").write_text("no ELF file")
    (tmp_path / "empty").write_bytes(b"")
    found = program_with(program, tmp_path / "text", tmp_path / "empty")
    assert [note.partition(": ")[2] for note in found.symbols.notes] == ["it is no ELF file for this machine."] * 2


def test_symbols_packed_into_the_image_are_unpacked(build: Callable[..., Path]) -> None:
    """MiniDebugInfo, as Fedora has it, gives the static functions."""
    program = build()
    expected = plan(elf_images.program(program), "hidden")
    embed(program, packed_symbols(program))
    found = elf_images.program(program)
    assert (found.symbols.sources, found.symbols.notes) == ((".dynsym", ".gnu_debugdata"), ())
    assert plan(found, "hidden") == expected


@pytest.mark.parametrize(
    ("spoil", "note"),
    [
        (lambda packed: packed[:-40], "Its .gnu_debugdata is cut short."),
        (lambda packed: b"\0" * 64, "Its .gnu_debugdata is damaged: input format not supported by decoder."),
        (lambda packed: lzma.compress(b"nothing"), "Its .gnu_debugdata holds no ELF file."),
        (lambda packed: lzma.compress(bytes(129 << 20), preset=0), "Its .gnu_debugdata unpacks to more than 128 MiB."),
    ],
)
def test_damaged_packed_symbols_are_refused(build: Callable[..., Path], spoil: Callable[[bytes], bytes], note: str) -> None:
    """The image is used without them, and it is said why."""
    program = build()
    embed(program, spoil(packed_symbols(program)))
    found = elf_images.program(program)
    assert (found.symbols.sources, found.symbols.notes) == ((".dynsym",), (note,))
    assert plan(found, "shown").name == "shown"


@pytest.mark.parametrize("style", ["gnu", "sysv", "both"])
def test_without_section_headers_the_dynamic_symbols_are_found(build: Callable[..., Path], style: str) -> None:
    """The loader finds them without, by either kind of hash table."""
    program = build(f"-Wl,--hash-style={style}")
    whole = elf_images.program(program)
    drop_section_headers(program)
    found = elf_images.program(program)
    assert found.symbols.sources == (".dynsym",)
    assert {"shown", "same", "main"} <= set(found.symbols.by_name)
    assert plan(found, "shown").sites == plan(whole, "shown").sites
    assert found.symbols.imports == whole.symbols.imports
    assert found.file.info.build_id == whole.file.info.build_id


def test_what_a_file_imports_is_known_with_its_library(build: Callable[..., Path]) -> None:
    """By the versions that it asks for."""
    imports = elf_images.program(build()).symbols.imports
    assert imports["printf"] == Import("printf", "libc.so.6")
    assert imports["cos"] == Import("cos", "libm.so.6")
    assert "shown" not in imports


def test_old_versions_of_a_symbol_are_told_from_the_default_one(tmp_path: Path) -> None:
    """NAME is the default version; NAME@VERSION is an old one; both tables agree on that."""
    (tmp_path / "map").write_text("V1 { global: both; old; };\nV2 { global: both; } V1;\n")
    body = "".join(f".globl {name}\n.type {name}, @function\n{name}: ret\n.size {name}, 1\n" for name in ("b1", "b2", "o1"))
    body += ".symver b1, both@V1\n.symver b2, both@@V2\n.symver o1, old@V1\n"
    path = elf_images.gcc(
        tmp_path / "versions.so", f".text\n{body}", "-shared", "-nostdlib", f"-Wl,--version-script={tmp_path / 'map'}"
    )
    for strip in (False, True):
        if strip:
            split(path, tmp_path / "versions.debug")
        symbols = elf_images.program(path).symbols
        first, second = symbols.by_name["both@V1"], symbols.by_name["both"]
        assert (len(first), len(second), second[0].vaddr - first[0].vaddr) == (1, 1, 1)
        assert [each.vaddr - first[0].vaddr for each in symbols.by_name["old@V1"]] == [2]


def test_a_size_that_the_symbol_lacks_is_that_of_its_frame(tmp_path: Path) -> None:
    """Assembly often forgets .size, but not the unwind information."""
    body = """
        function sized_by_frame
        .cfi_startproc
        nop
        ret
        .cfi_endproc
        function sized_by_nothing
        nop
        ret
    """
    image = elf_images.assembly(tmp_path, body)
    assert image.symbols.by_name["sized_by_frame"][0].size_bytes == 2
    assert image.symbols.by_name["sized_by_nothing"][0].size_bytes == 0
    assert plan(image, "sized_by_frame").exits


def test_an_imported_function_is_said_to_be_elsewhere(build: Callable[..., Path], tmp_path: Path) -> None:
    """A name that has only a PLT stub here is found where it is defined, and the hint says how to name it."""
    program = build()
    split(program, tmp_path / "program.debug")
    found = elf_images.program(program)
    with pytest.raises(NotFound, match=r"does not have the function 'cos': it is imported from libm\.so\.6\.") as missing:
        plan(found, "cos")
    build_id = found.file.info.build_id
    assert missing.value.hint.startswith("Name it as libm.so.6!cos. ")
    assert missing.value.hint.endswith(
        f"Static functions are named by its debug file .build-id/{build_id[:2]}/{build_id[2:]}.debug, which was not found."
    )


_CHOSEN = """
volatile int sink;
__attribute__((noinline)) static int plain(int a) { return a * 3 + sink; }
__attribute__((noinline)) int with_avx2(int a) { return a * 5 + sink; }
static int (*chooser(void))(int) { __builtin_cpu_init(); return __builtin_cpu_supports("avx2") ? with_avx2 : plain; }
int chosen(int a) __attribute__((ifunc("chooser")));
int main(int argc, char **argv) { (void)argv; return chosen(argc) < 0; }
"""


@pytest.mark.parametrize("flags", [("-O0",), ("-O2",), ("-O2", "-no-pie"), ("-O2", "-static"), ("-O2", "-static-pie")])
def test_what_is_chosen_at_the_start_is_refused_with_what_there_is_to_choose(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """The symbol is that of the chooser; the implementations can be probed by their own names."""
    source = tmp_path / "chosen.c"
    source.write_text(_CHOSEN)
    image = elf_images.program(elf_images.gcc(tmp_path / "chosen", source, *flags))
    with pytest.raises(FailedPrecondition, match="chosen cannot be probed: it is chosen when the program starts") as refused:
        plan(image, "chosen")
    assert set(refused.value.hint.removesuffix(".").rpartition(": ")[2].split(", ")) == {"plain", "with_avx2"}
    assert [plan(image, name).method for name in ("plain", "with_avx2")] == [Method.RET_SITES] * 2


def test_a_name_means_the_default_version(tmp_path: Path) -> None:
    """Programs that were linked long ago use NAME@VERSION, which is another function."""
    (tmp_path / "map").write_text("V1 { global: both; old; };\nV2 { global: both; } V1;\n")
    body = "".join(f".globl {name}\n.type {name}, @function\n{name}: ret\n.size {name}, 1\n" for name in ("b1", "b2", "o1"))
    body += ".symver b1, both@V1\n.symver b2, both@@V2\n.symver o1, old@V1\n"
    flags = ("-shared", "-nostdlib", f"-Wl,--version-script={tmp_path / 'map'}", "-s")
    image = elf_images.program(elf_images.gcc(tmp_path / "versions.so", f".text\n{body}", *flags))
    asked = ("both", "both@V1", "both@@V2", "old", "old@V1")
    first, *_ = vaddrs = [plan(image, name).entries[0].offset for name in asked]
    assert [vaddr - first for vaddr in vaddrs] == [0, -1, 0, 1, 1]


def test_without_versions_an_import_is_of_any_library_that_is_asked_for(tmp_path: Path) -> None:
    """Nothing in the file says which; the message lists them."""
    libraries = []
    for name in ("one", "two"):
        body = f".text\n.globl of_{name}\n.type of_{name}, @function\nof_{name}: ret\n.size of_{name}, 1\n"
        library = elf_images.gcc(tmp_path / f"lib{name}.so", body, "-shared", "-nostdlib")
        libraries.append(str(library))
        user = elf_images.gcc(
            tmp_path / "user.so",
            ".text\n.globl f\n.type f, @function\nf: jmp of_one@plt\n.size f, .-f\n",
            *("-shared", "-nostdlib", f"-Wl,-rpath,{tmp_path}", "-Wl,--no-as-needed", *libraries),
        )
        with pytest.raises(NotFound) as missing:
            plan(elf_images.program(user), "of_one")
        names = [f"lib{each}.so" for each in ("one", "two")][: len(libraries)]
        expected = ", ".join(names)
        expected = f"one of {expected}" if name == "two" else expected
        assert missing.value.message == f"{user} does not have the function 'of_one': it is imported from {expected}."
        assert (
            missing.value.hint.split(" The nearest")[0] == f"Name it as {'libone.so' if name == 'one' else 'LIBRARY'}!of_one."
        )


def test_what_was_split_off_by_partial_inlining_is_said(tmp_path: Path) -> None:
    """Callers that have the beginning of a function in them enter the rest, past the function's own entry."""
    source = tmp_path / "parts.c"
    rest = "for (int i = 0; i < x; i++) { deep(i); deep(x); sink ^= i * x; if (sink == 77) deep(3); } deep(4); deep(5);"
    source.write_text(
        "volatile int sink; __attribute__((noinline)) void deep(int x) { sink += x; }\n"
        f"int work(int x) {{ if (x < 10) return x; {rest} return sink; }}\n"
        "__attribute__((noinline)) int caller(int x) { return work(x) + 1; }\n"
        "int main(int argc, char **argv) { (void)argv; return caller(argc) + work(argc * 2); }\n"
    )
    image = elf_images.program(elf_images.gcc(tmp_path / "parts", source, "-O2"))
    assert "work.part.0" in image.symbols.by_name
    (entry,) = plan(image, "work").entries
    assert entry.reason.endswith(
        "; calls by callers that its beginning was inlined into, which go on in work.part.0, are not seen"
    )
    assert "not seen" not in plan(image, "caller").entries[0].reason
