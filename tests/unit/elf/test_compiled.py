"""Plans for C as compilers write it, checked against what objdump says of the same file."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support import elf_images

from coral.elf.plan import plan
from coral.model.errors import FailedPrecondition
from coral.model.site import Method, Pairing, SiteKind

_NAMES = (
    *("leaf", "tail", "maybe_tail", "through_plt", "through_pointer", "with_frame", "with_alloca", "with_large_frame"),
    *("with_aligned_frame", "switched", "looping", "with_cold_part", "early", "recursive", "guarded"),
)
_FLAGS = [
    ("-O0",),
    ("-O1",),
    ("-O2",),
    ("-O3",),
    ("-Os",),
    ("-O2", "-fcf-protection=full"),
    ("-O2", "-fno-plt"),
    ("-O2", "-no-pie", "-fno-pie"),
    ("-O2", "-fstack-clash-protection", "-fstack-protector-all"),
    ("-O2", "-fno-omit-frame-pointer"),
    ("-O2", "-mcmodel=large", "-no-pie", "-fno-pie"),
    ("-O0", "-fcf-protection=full", "-no-pie"),
    ("-O0", "-no-pie", "-fno-pie"),
]


@pytest.mark.parametrize("flags", _FLAGS, ids=" ".join)
def test_every_function_has_one_entry_and_all_of_its_returns(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """At every optimization level, sites are objdump's instructions, entries precede the frame, and no return is missed."""
    path = elf_images.gcc(tmp_path / "shapes", elf_images.SOURCES / "shapes.c", *flags)
    image = elf_images.program(path)
    listed = elf_images.listing(path)
    by_offset = {image.file.file_offset(vaddr): text for vaddr, text in listed.items()}
    for name in _NAMES:
        found = elf_images.plan_of(image, name)
        assert (found.name, found.language, found.pairing, found.method, found.reason) == (
            name,
            "c",
            Pairing.STACK_POINTER,
            Method.RET_SITES,
            "",
        )
        assert len(found.entries) == 1
        for site in found.sites:
            code, text = by_offset[site.offset]
            assert site.original == code
            if site.kind is SiteKind.RETURN:
                assert re.match(r"(repz |bnd )?ret", text)
            elif site.kind is SiteKind.TAIL:
                assert re.match(r"(bnd )?j", text)
        assert elf_images.returns_of(image, listed, name) <= elf_images.return_offsets(found)


@pytest.mark.parametrize("flags", [("-O2",), ("-O2", "-no-pie", "-fno-pie"), ("-O3", "-fcf-protection=full")], ids=" ".join)
def test_a_stripped_file_gives_the_same_sites(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Cold parts, tail calls and tables are found without the symbols that name them, exactly as with them."""
    full = elf_images.gcc(tmp_path / "full", elf_images.SOURCES / "shapes.c", "-rdynamic", *flags)
    bare = tmp_path / "bare"
    subprocess.run(["strip", "-s", "-o", str(bare), str(full)], check=True)
    with_symbols, without = elf_images.program(full), elf_images.program(bare)
    assert len(without.symbols) < len(with_symbols.symbols)
    for name in _NAMES:
        assert elf_images.plan_of(without, name) == elf_images.plan_of(with_symbols, name)


def test_a_shared_library_names_itself_in_the_plan(tmp_path: Path) -> None:
    """The caller says which library it is; sites are offsets in that file."""
    path = elf_images.gcc(tmp_path / "libshapes.so", elf_images.SOURCES / "shapes.c", "-O2", "-shared", "-fPIC")
    found = plan(elf_images.program(path), "leaf", library="libshapes.so")
    assert (found.library, found.method, len(found.entries)) == ("libshapes.so", Method.RET_SITES, 1)


def test_offsets_are_of_the_file_where_segments_are_not_mapped_at_their_offset(tmp_path: Path) -> None:
    """A link address that differs from the file offset by more than the load address is mapped through PT_LOAD."""
    flags = ("-O2", "-no-pie", "-fno-pie", "-Wl,-Ttext=0x7700000", "-Wl,-z,max-page-size=0x200000")
    path = elf_images.gcc(tmp_path / "far", elf_images.SOURCES / "shapes.c", *flags)
    image = elf_images.program(path)
    (function,) = image.symbols.by_name["leaf"]
    (entry,) = elf_images.plan_of(image, "leaf").entries
    content = path.read_bytes()
    assert entry.offset < len(content)
    assert content[entry.offset : entry.offset + len(entry.original)] == entry.original
    assert image.file.read(function.vaddr, 4096).find(entry.original) >= 0


def test_constprop_clones_are_one_function_with_several_sites(tmp_path: Path) -> None:
    """Clones of one function are all probed, under its name; what was split off is not an entry."""
    source = tmp_path / "clones.c"
    source.write_text(
        "volatile int sink;\n"
        "__attribute__((noinline)) static int work(int a, int b) { for (int i = 0; i < a; i++) sink += b; return sink; }\n"
        "int main(int n, char **v) { return work(n, 3) + work(n + 1, 3); }\n"
    )
    image = elf_images.program(elf_images.gcc(tmp_path / "clones", source, "-O3"))
    clones = [name for name in image.symbols.by_name if name.startswith("work")]
    assert any("constprop" in name for name in clones), clones
    found = elf_images.plan_of(image, "work")
    assert (found.name, found.method, len(found.entries)) == ("work", Method.RET_SITES, len(clones))


def test_static_namesakes_are_told_apart_by_their_file(tmp_path: Path) -> None:
    """Two static functions of one name in two files are ambiguous until the file is given."""
    for name in ("dup_a", "dup_b"):
        (tmp_path / f"{name}.c").write_text(
            f"volatile int {name}_sink; __attribute__((noinline)) static int work(int a) {{ return {name}_sink + a; }}\n"
            f"int {name}(int a) {{ return work(a) + work(a + 1); }}\n"
        )
    (tmp_path / "main.c").write_text(
        "int dup_a(int); int dup_b(int); int main(int n, char **v) { return dup_a(n) + dup_b(n); }"
    )
    others = [str(tmp_path / "dup_a.c"), str(tmp_path / "dup_b.c")]
    image = elf_images.program(elf_images.gcc(tmp_path / "dup", tmp_path / "main.c", *others, "-O1", "-fno-inline"))
    with pytest.raises(Exception, match=r"means 2 functions.*dup_a\.c:work, dup_b\.c:work"):
        elf_images.plan_of(image, "work")
    offsets = {elf_images.plan_of(image, f"{name}.c:work").entries[0].offset for name in ("dup_a", "dup_b")}
    assert len(offsets) == 2


def test_an_ifunc_is_refused_with_its_reason(tmp_path: Path) -> None:
    """The symbol of an IFUNC is its resolver, which runs once; probing it would count nothing."""
    source = tmp_path / "ifunc.c"
    source.write_text(
        "static int one(int a) { return a; }\nstatic void *choose(void) { return one; }\n"
        'int work(int) __attribute__((ifunc("choose")));\nint main(int n, char **v) { return work(n); }\n'
    )
    image = elf_images.program(elf_images.gcc(tmp_path / "ifunc", source, "-O1"))
    with pytest.raises(FailedPrecondition, match="IFUNC"):
        elf_images.plan_of(image, "work")


def test_a_mangled_function_is_planned_in_its_language(tmp_path: Path) -> None:
    """C++ names are found by their symbol and by their source name."""
    source = tmp_path / "plus.c"
    source.write_text(
        'int work(int a) __asm__("_ZN4shop4workEi");\nint work(int a) { return a; }\nint main() { return 0; }\n'
    )
    image = elf_images.program(elf_images.gcc(tmp_path / "plus", source))
    for name in ("_ZN4shop4workEi", "shop::work"):
        assert elf_images.plan_of(image, name).language == "cpp"
