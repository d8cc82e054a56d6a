"""Which of a C++ function's symbols are probed, and what else its code is called."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import build, elf_images

from coral.elf import names
from coral.elf.program import Program
from coral.elf.variants import counted


def _counted(image: Program, text: str) -> set[str]:
    return {function.name for function in counted(image, names.find(image.symbols, text, "structors").functions)}


@pytest.mark.parametrize(
    ("compiler", "level", "function", "symbols"),
    [
        ("g++", "-Os", "~Both", {"_ZN4BothD1Ev"}),
        ("g++", "-Os", "~Top", {"_ZN3TopD4Ev"}),
        ("g++", "-Os", "Joined::Joined", {"_ZN6JoinedC4El"}),
        ("g++", "-Os", "Both::self2", {"_ZN4Both5self2Ev"}),
        ("clang++", "-O2", "~Tiny", {"_ZN4TinyD1Ev", "_ZN4TinyD0Ev", "_ZThn16_N4TinyD1Ev", "_ZThn16_N4TinyD0Ev"}),
        ("clang++", "-O2", "~Joined", {"_ZN6JoinedD2Ev"}),
        ("clang++", "-O2", "Joined::Joined", {"_ZN6JoinedC1El", "_ZN6JoinedC2El"}),
        ("clang++", "-O2", "Both::second", {"_ZN4Both6secondEl"}),
    ],
)
def test_variants_that_pass_their_calls_on_are_left_out(compiler: str, level: str, function: str, symbols: set[str]) -> None:
    """What calls, jumps or falls into another variant whatever happens is counted there; what has the body counts itself."""
    image = elf_images.program(build.cpp_program("structors", level, compiler=compiler))
    # Clang 19 also makes copies for a constant argument; a call goes to one of them or to the original.
    assert {symbol.partition(".specialized.")[0] for symbol in _counted(image, function)} == symbols


def test_the_language_of_an_image_is_told() -> None:
    """A program that can handle C++ exceptions is C++."""
    image = elf_images.program(build.cpp_program("structors", "-Os"))
    assert image.file.info.language == "cpp"
    plan = elf_images.plan_of(image, "over(long)")
    assert (plan.name, plan.language) == ("shop::over(long)", "cpp")


def test_folded_functions_are_one_with_several_names(tmp_path: Path) -> None:
    """Where the linker gave two functions the same code, calls of both are counted, and the plan says whose else."""
    image = elf_images.assembly(
        tmp_path,
        ".text\n.globl _ZN1A3getEv, _ZN1B3getEv\n.type _ZN1A3getEv, @function\n.type _ZN1B3getEv, @function\n"
        "_ZN1A3getEv:\n_ZN1B3getEv:\n push %rbx\n pop %rbx\n ret\n"
        ".size _ZN1A3getEv, .-_ZN1A3getEv\n.size _ZN1B3getEv, .-_ZN1B3getEv\n",
    )
    plan = elf_images.plan_of(image, "A::get")
    assert plan.name == "A::get"
    assert plan.entries[0].reason.endswith("; the same code is also B::get()")
