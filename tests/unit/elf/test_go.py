"""Plans for Go as its compiler writes it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import elf_images

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
        ("runtime.systemstack.abi0", "written in assembly|switches stacks"),
        ("runtime.memmove", "written in assembly"),
    ],
)
def test_what_does_not_return_or_keep_the_goroutine_is_refused(built: tuple[Path, Program], name: str, why: str) -> None:
    """The scheduler and assembly are refused with their reason."""
    with pytest.raises(FailedPrecondition, match=why):
        elf_images.plan_of(built[1], name)


def test_a_function_that_only_panics_never_returns(built: tuple[Path, Program]) -> None:
    """Its entries are counted."""
    plan = elf_images.plan_of(built[1], "runtime.panicwrap")
    assert (plan.method, plan.reason) == (Method.ENTRY_ONLY, "runtime.panicwrap never returns.")
    assert [site.kind for site in plan.sites] == [SiteKind.ENTRY]


def test_a_stripped_go_program_says_that_it_is(tmp_path: Path) -> None:
    """Without a symbol table nothing is guessed."""
    image = elf_images.program(elf_images.go_build(tmp_path / "bare", "-ldflags=-s"))
    with pytest.raises(FailedPrecondition, match="names no functions: it was stripped"):
        elf_images.plan_of(image, "main.leaf")
