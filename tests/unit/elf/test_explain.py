"""What is told of one function: where it is, what would be attached, or why nothing would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import elf_images

from coral.elf.explain import explain
from coral.elf.inspect_messages import explanation_from_json, explanation_to_json
from coral.elf.plan import plan
from coral.elf.program import Program
from coral.model.errors import AmbiguousName, NotFound
from coral.model.inspection import Probeable

_SOURCE = """
    .globl also
    .type also, @function
    .set also, work
    .size also, 7
    function work
        push %rbx
        pop %rbx
        test %edi, %edi
        je other
        ret
    end work
    function other
        ret
    end other
    function spin
        jmp spin
    end spin
    function endless
        push %rbx
    1:  jmp 1b
    end endless
    function _ZN1a1fEi
        ret
    end _ZN1a1fEi
    function _ZN1a1fEl
        ret
    end _ZN1a1fEl
"""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """A library with one function of each kind."""
    return elf_images.assembly(tmp_path, _SOURCE)


def test_what_would_be_attached(program: Program) -> None:
    """Sites are those of the plan, each with its instruction; names that share the address are told."""
    explained = explain(program, "work")
    assert (explained.name, explained.language, explained.hint) == ("work", "c", "")
    assert (explained.verdict.probeable, explained.verdict.reason) == (Probeable.YES, "")
    assert tuple(each.site for each in explained.sites) == plan(program, "work").sites
    assert [(each.site.kind, each.instruction.split()[0], each.emulated) for each in explained.sites] == [
        ("entry", "push", True),
        ("tail", "je", True),
        ("return", "ret", False),
    ]
    (address,) = explained.addresses
    (function,) = {each.vaddr: each for each in program.symbols.by_name["work"]}.values()
    assert (address.vaddr, address.size_bytes, address.symbol, address.also_named) == (
        function.vaddr,
        function.size_bytes,
        "work",
        ("also",),
    )
    assert address.file_offset == program.file.file_offset(function.vaddr)
    assert explained.sites[0].vaddr == function.vaddr


def test_why_not(program: Program) -> None:
    """A refused function has its reason and a next step; one of which entries alone are seen says that."""
    refused = explain(program, "spin")
    assert (refused.verdict.probeable, refused.verdict.reason) == (Probeable.NO, "jumps back to its first instruction")
    assert refused.hint
    assert (refused.method, refused.pairing, refused.sites) == ("", "", ())
    assert len(refused.addresses) == 1
    partly = explain(program, "endless")
    assert (partly.verdict.probeable, partly.verdict.reason, partly.method) == (
        Probeable.PARTLY,
        "never returns",
        "entry_only",
    )
    assert [each.site.kind for each in partly.sites] == ["entry"]
    assert "durations" in partly.hint


def test_names_that_are_none_or_several(program: Program) -> None:
    """An unknown name and one of several overloads are errors as for an attach, with what to type."""
    with pytest.raises(NotFound, match="wrok"):
        explain(program, "wrok")
    with pytest.raises(AmbiguousName) as several:
        explain(program, "a::f")
    assert "a::f(int)" in several.value.hint
    assert explain(program, "a::f(long)").addresses[0].symbol == "_ZN1a1fEl"


def test_an_explanation_survives_the_socket(program: Program) -> None:
    """In JSON and back it is the same, whatever it says."""
    for name in ("work", "spin", "endless", "a::f(int)"):
        explained = explain(program, name)
        assert explanation_from_json(json.loads(json.dumps(explanation_to_json(explained)))) == explained
