"""What compilers of C++ and Rust do with parts of functions and with jump tables, written down in assembly."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import elf_images

from coral.model.site import Method

_LOAD = "movslq (%rcx,%rbx,4), %rax"
_TABLE = """
    function f
        push %rbx
        push %rbx
        {check}
        lea .Ltable(%rip), %rcx
        {load}
        add %rcx, %rax
        jmp *%rax
    .La: pop %rbx
        pop %rbx
        ret
    .Lb: mov $1, %eax
        pop %rbx
        pop %rbx
        ret
    end f
    .Lend: ud2
    function g
    .Lg: mov $1, %eax
        ret
    end g
    .section .rodata
    .balign 4
    .Ltable: .long .La - .Ltable, {between}.Lb - .Ltable
    .long .Lb - .Ltable + 1, 0, 0
    .Lnext: .long .Lg - .Lnext
    .text
    lea .Lnext(%rip), %rax
"""


@pytest.mark.parametrize(
    "check",
    [
        pytest.param("mov %rdi, %rbx\n cmp $1, %rdi\n ja .La", id="of-what-the-index-was-copied-from"),
        pytest.param("mov %rdi, %rbx\n sub $1, %rdi\n ja .La", id="by-a-subtraction"),
        pytest.param("cmp $1, %rdi\n ja .La\n mov %rdi, %rbx", id="before-the-copy"),
        pytest.param("mov %rdi, %rbx\n cmp $2, %rbx\n jae .La", id="of-the-index"),
    ],
)
@pytest.mark.parametrize(
    "load", [pytest.param(_LOAD, id="scaled"), pytest.param("shl $2, %rbx\n mov (%rbx,%rcx,1), %eax\n cltq", id="shifted")]
)
def test_a_check_of_the_index_bounds_the_table(tmp_path: Path, check: str, load: str) -> None:
    """The table ends where the check says, although what follows looks like places too."""
    found = elf_images.plan_of(elf_images.assembly(tmp_path, _TABLE.format(check=check, load=load, between="")), "f")
    assert (found.method, found.reason) == (Method.RET_SITES, "")
    assert [site.kind.value for site in found.sites] == ["entry", "return", "return"]


def test_a_check_of_what_the_index_is_no_longer_is_none(tmp_path: Path) -> None:
    """What was checked and then changed says nothing of the index; the elements that are no places end the table."""
    check = "cmp $0, %rdi\n ja .La\n add $1, %rdi\n mov %rdi, %rbx"
    found = elf_images.plan_of(elf_images.assembly(tmp_path, _TABLE.format(check=check, load=_LOAD, between="")), "f")
    assert [site.kind.value for site in found.sites] == ["entry", "return", "return"]


def test_an_impossible_case_leads_behind_the_function(tmp_path: Path) -> None:
    """Clang lets the cases that cannot be lead to the end of the function; the cases behind them are found all the same."""
    text = _TABLE.format(check="mov %rdi, %rbx", load=_LOAD, between=".Lend - .Ltable, .Lend - .Ltable, ")
    found = elf_images.plan_of(elf_images.assembly(tmp_path, text), "f")
    assert (found.method, found.reason) == (Method.RET_SITES, "")
    assert [site.kind.value for site in found.sites] == ["entry", "return", "return"]


@pytest.mark.parametrize("names", [("f.warm", "f.cold"), ("f.cold.0", "f.cold.1"), ("f.warm", "f.cold.0")])
def test_a_function_in_three_parts(tmp_path: Path, names: tuple[str, str]) -> None:
    """BOLT leaves what runs often, sometimes and rarely in three places; returns in any of them are the function's."""
    code = f"""
    function f
        push %rbx
        test %edi, %edi
        je 1f
        pop %rbx
        ret
    end f
    function {names[0]}
    1:  cmp $5, %esi
        je 2f
        pop %rbx
        ret
    end {names[0]}
    function {names[1]}
    2:  pop %rbx
        ret
    end {names[1]}
    """
    image = elf_images.assembly(tmp_path, code.replace(".globl", ".local"))
    found = elf_images.plan_of(image, "f")
    assert (found.method, found.reason) == (Method.RET_SITES, "")
    assert [site.kind.value for site in found.sites] == ["entry", "return", "return", "return"]


def test_code_behind_a_call_that_does_not_return_is_no_exit_while_the_stack_is_in_use(tmp_path: Path) -> None:
    """Unoptimized code jumps to the end of its function behind a call that never returns; that is no tail call."""
    code = """
    function f
    .cfi_startproc
        push %rbp
        .cfi_def_cfa_offset 16
        mov %rsp, %rbp
        .cfi_def_cfa_register 6
        test %edi, %edi
        je 1f
        pop %rbp
        .cfi_def_cfa 7, 8
        ret
        .cfi_def_cfa 6, 16
    1:  call abort@plt
        jmp 2f
    .cfi_endproc
    end f
        nop
    2:  nop
    """
    found = elf_images.plan_of(elf_images.assembly(tmp_path, code), "f")
    assert (found.method, found.reason) == (Method.RET_SITES, "")
