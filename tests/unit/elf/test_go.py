"""Plans for Go as its compiler writes it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support import elf_images

from coral.elf import gorules
from coral.elf.program import Program
from coral.model.errors import FailedPrecondition
from coral.model.site import Method, Pairing, SiteKind

_NAMES = (
    *("main.leaf", "main.withFrame", "main.withLargeFrame", "main.recovers", "main.switched", "main.panics"),
    *("main.(*counter).add", "main.recovers.func1"),
)


@pytest.fixture(scope="module", params=[(), ("-buildmode=pie",), ("-gcflags=-N -l",)], ids=["static", "pie", "unoptimized"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Program]:
    """The Go program, in three ways."""
    path = elf_images.go_build(tmp_path_factory.mktemp("go") / "shapes", *request.param)
    return path, elf_images.program(path)


def test_a_go_image_says_its_version(built: tuple[Path, Program]) -> None:
    """The language and version come from the build information."""
    info = built[1].file.info
    assert info.language == "go"
    assert re.fullmatch(r"go1\.\d+(\.\d+)?", info.go_version)
    assert info.image_id.startswith(("build-id:", "sha256:"))


def test_every_function_has_one_entry_behind_its_stack_check(built: tuple[Path, Program]) -> None:
    """The entry is outside of the loop through runtime.morestack, and every return is an exit, that after a recover too."""
    path, image = built
    listed = elf_images.listing(path)
    by_offset = {image.file.file_offset(vaddr): text for vaddr, text in listed.items()}
    for name in _NAMES:
        plan = elf_images.plan_of(image, name)
        assert (plan.language, plan.pairing, plan.method, plan.reason) == ("go", Pairing.GO, Method.RET_SITES, ""), name
        (entry,) = plan.entries
        (function,) = image.symbols.by_name[name]
        start = image.file.file_offset(function.vaddr)
        checked = any("morestack" in text for vaddr, (_, text) in listed.items() if function.vaddr <= vaddr < function.end)
        assert (entry.offset > start) if checked else (entry.offset >= start), name
        assert by_offset[entry.offset][1].startswith("push") or not checked, name
        assert elf_images.return_offsets(plan) == elf_images.returns_of(image, listed, name), name
        for site in plan.sites:
            assert by_offset[site.offset][0] == site.original


def test_all_instances_of_a_generic_are_one_function(built: tuple[Path, Program]) -> None:
    """``main.largest`` is both of its shapes; with an argument it is one of them."""
    assert len(elf_images.plan_of(built[1], "main.largest").entries) == 2
    assert len(elf_images.plan_of(built[1], "main.largest[int]").entries) == 1


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("runtime.mcall", "switches stacks"),
        ("runtime.schedule", "switches stacks"),
        ("runtime.systemstack.abi0", "switches stacks"),
        ("runtime.asyncPreempt.abi0", "follows assembly's convention and calls other functions"),
        ("runtime.sigtrampgo", "sets another goroutine"),
    ],
)
def test_what_does_not_return_or_keep_the_goroutine_is_only_counted(built: tuple[Path, Program], name: str, why: str) -> None:
    """Entries of the scheduler, and of assembly whose stack may move, are counted; the reason is said."""
    plan = elf_images.plan_of(built[1], name)
    assert (plan.method, [site.kind for site in plan.sites]) == (Method.ENTRY_ONLY, [SiteKind.ENTRY])
    assert why in plan.reason


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("runtime.goexit.abi0", "is never called: goroutines return into it"),
        (
            "internal/bytealg.countGeneric.abi0",
            "only lets assembly call internal/bytealg.countGeneric, which is the function",
        ),
    ],
)
def test_what_cannot_be_counted_is_refused(built: tuple[Path, Program], name: str, why: str) -> None:
    """Where entries are not calls, or calls not entries, nothing is counted."""
    with pytest.raises(FailedPrecondition, match=why):
        elf_images.plan_of(built[1], name)


def test_the_number_of_a_goroutine_is_where_the_compiler_puts_it(built: tuple[Path, Program]) -> None:
    """The code that changes a goroutine's status says where; DWARF, which strip takes away, says the same."""
    dwarf = subprocess.run(
        ["readelf", "--debug-dump=info", "--dwarf-depth=3", str(built[0])], capture_output=True, text=True, check=True
    ).stdout
    start = re.search(r"DW_AT_name\s*: runtime\.g\n", dwarf)
    assert start is not None
    member = re.search(r"DW_AT_name\s*: goid\n.*?DW_AT_data_member_location: (\d+)", dwarf[start.end() :], re.DOTALL)
    assert member is not None
    assert elf_images.plan_of(built[1], "main.leaf").goid_offset == int(member[1])
    assert elf_images.plan_of(built[1], "runtime.memmove").goid_offset == 0


def test_a_function_that_was_inlined_says_so(built: tuple[Path, Program]) -> None:
    """It has no code, and its callers are named; of one that has some too, the calls that are not seen are told."""
    image = built[1]
    if "main.inlined" in image.symbols.by_name:  # without optimization nothing is inlined
        assert elf_images.plan_of(image, "main.inlined").method is Method.RET_SITES
        assert not gorules.inlined_too(image, "main.partly")
        return
    for text in ("main.inlined", "inlined"):
        with pytest.raises(FailedPrecondition, match=r"has no code of its own.*inlined into its callers, e\.g\. main\.holds"):
            elf_images.plan_of(image, text)
    assert gorules.inlined_too(image, "main.partly") == "Calls from main.holds, into which it was inlined, are not seen."
    assert gorules.inlined_too(image, "main.leaf") == ""
    assert elf_images.plan_of(image, "main.partly").method is Method.RET_SITES


@pytest.mark.parametrize("name", ["runtime.memmove", "internal/bytealg.IndexByte.abi0", "runtime.usleep.abi0"])
def test_assembly_that_calls_nothing_is_told_apart_by_the_stack_pointer(built: tuple[Path, Program], name: str) -> None:
    """No stack moves and no thread is changed while it runs, so its returns are seen."""
    plan = elf_images.plan_of(built[1], name)
    assert (plan.language, plan.pairing, plan.method, plan.reason) == ("go", Pairing.STACK_POINTER, Method.RET_SITES, "")


def test_a_function_that_only_panics_never_returns(built: tuple[Path, Program]) -> None:
    """Its entries are counted."""
    plan = elf_images.plan_of(built[1], "runtime.panicwrap")
    assert (plan.method, plan.reason) == (Method.ENTRY_ONLY, "runtime.panicwrap never returns.")
    assert [site.kind for site in plan.sites] == [SiteKind.ENTRY]
