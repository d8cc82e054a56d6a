"""Plans for code that is written out here, one rule at a time."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support import elf_images

from coral.model.errors import FailedPrecondition
from coral.model.site import FunctionPlan, Method, SiteKind

_COLD = """
    function f
    .cfi_startproc
        push %rbx
        .cfi_def_cfa_offset 16
        test %edi, %edi
        js f.cold
        mov %edi, %ebx
    1:  lea 1(%rbx), %eax
        pop %rbx
        .cfi_def_cfa_offset 8
        ret
    .cfi_endproc
    end f
    function other
    .cfi_startproc
        test %esi, %esi
        jne shallow.cold
        ret
    .cfi_endproc
    end other
    .section .text.unlikely, "ax", @progbits
    .type f.cold, @function
    f.cold:
    .cfi_startproc
    .cfi_def_cfa_offset 16
        neg %edi
        js 2f
        mov %edi, %ebx
        jmp 1b
    2:  xor %eax, %eax
        pop %rbx
        .cfi_def_cfa_offset 8
        ret
    .cfi_endproc
    end f.cold
    .type shallow.cold, @function
    shallow.cold:
    .cfi_startproc
        xor %eax, %eax
        ret
    .cfi_endproc
    end shallow.cold
"""


def _shape(plan: FunctionPlan) -> list[tuple[str, str, int, str]]:
    """What a plan says, without offsets: kind, bytes, condition and target of each site."""
    return [(site.kind.value, site.original.hex(), site.condition, site.to) for site in plan.sites]


def _refusal(tmp_path: Path, body: str, name: str = "f") -> str:
    with pytest.raises(FailedPrecondition) as caught:
        elf_images.plan_of(elf_images.assembly(tmp_path, body), name)
    return caught.value.message


def _reason(tmp_path: Path, body: str) -> str:
    """Why only entries of ``f`` are seen."""
    plan = elf_images.plan_of(elf_images.assembly(tmp_path, body), "f")
    assert plan.method is Method.ENTRY_ONLY
    assert [site.kind for site in plan.sites] == [SiteKind.ENTRY]
    return plan.reason


def test_the_push_is_preferred_to_endbr64(tmp_path: Path) -> None:
    """Where several instructions would do, the entry is one that the kernel emulates."""
    image = elf_images.assembly(
        tmp_path, "function f\n endbr64\n mov %esp, %eax\n push %rbx\n mov %edi, %ebx\n pop %rbx\n ret\n end f"
    )
    assert _shape(elf_images.plan_of(image, "f")) == [("entry", "53", -1, ""), ("return", "c3", -1, "")]


def test_a_nop_of_five_bytes_is_passed_over(tmp_path: Path) -> None:
    """What -mfentry leaves for tracers is no place for a probe; what follows is."""
    image = elf_images.assembly(tmp_path, "function f\n .byte 0x0f,0x1f,0x44,0,0\n mov %edi, %eax\n ret\n end f")
    assert _shape(elf_images.plan_of(image, "f"))[0] == ("entry", "89f8", -1, "")


def test_the_entry_precedes_the_first_write_to_an_argument(tmp_path: Path) -> None:
    """A push behind ``mov %esi,%edi`` is too late: the first argument is gone."""
    image = elf_images.assembly(tmp_path, "function f\n xor %eax, %eax\n mov %esi, %edi\n push %rbx\n pop %rbx\n ret\n end f")
    assert _shape(elf_images.plan_of(image, "f"))[0] == ("entry", "31c0", -1, "")


def test_the_entry_may_be_what_moves_the_stack_but_not_behind_it(tmp_path: Path) -> None:
    """The trap comes before the instruction: ``sub`` itself is fine, the push behind it is not."""
    image = elf_images.assembly(tmp_path, "function f\n sub $24, %rsp\n push %rbx\n pop %rbx\n add $24, %rsp\n ret\n end f")
    assert _shape(elf_images.plan_of(image, "f"))[0] == ("entry", "4883ec18", -1, "")


def test_a_way_around_the_push_moves_the_entry_to_the_jump(tmp_path: Path) -> None:
    """A push that an early return goes around is not executed by every call; the conditional jump is, and it is emulated."""
    image = elf_images.assembly(
        tmp_path, "function f\n test %edi, %edi\n je 1f\n push %rbx\n pop %rbx\n ret\n 1: xor %eax, %eax\n ret\n end f"
    )
    plan = elf_images.plan_of(image, "f")
    assert _shape(plan) == [("entry", "7403", -1, ""), ("return", "c3", -1, ""), ("return", "c3", -1, "")]


def test_an_early_end_without_return_counts_as_a_way_around(tmp_path: Path) -> None:
    """Calls that end in ud2 before the push are calls too."""
    image = elf_images.assembly(
        tmp_path, "function f\n test %edi, %edi\n je 1f\n push %rbx\n pop %rbx\n ret\n 1: ud2\n end f"
    )
    assert _shape(elf_images.plan_of(image, "f"))[0] == ("entry", "7403", -1, "")


def test_a_jump_back_to_the_first_instruction_moves_the_entry(tmp_path: Path) -> None:
    """A loop that takes in the first bytes, as Go's stack check does, is left behind by an entry that is outside of it."""
    image = elf_images.assembly(
        tmp_path, "function f\n cmp %edi, %esi\n jb 1f\n push %rbx\n pop %rbx\n ret\n 1: inc %esi\n jmp f\n end f"
    )
    assert _shape(elf_images.plan_of(image, "f")) == [("entry", "53", -1, ""), ("return", "c3", -1, "")]


def test_a_function_that_is_a_loop_from_its_first_byte_is_refused(tmp_path: Path) -> None:
    """With no instruction that each call executes once, nothing is attached."""
    message = _refusal(tmp_path, "function f\n dec %edi\n jne f\n ret\n end f")
    assert message == "f cannot be probed: it jumps back to its first instruction."


def test_endbr64_stays_outside_of_a_loop_behind_it(tmp_path: Path) -> None:
    """Loops of tail recursion begin behind endbr64, which every call executes once."""
    image = elf_images.assembly(tmp_path, "function f\n endbr64\n 1: dec %edi\n jne 1b\n ret\n end f")
    assert _shape(elf_images.plan_of(image, "f"))[0] == ("entry", "f30f1efa", -1, "")


def test_tail_jumps_name_their_target_and_their_condition(tmp_path: Path) -> None:
    """Direct, conditional, through the PLT, through the GOT and through a register: all are exits."""
    body = """
    function g
        ret
    end g
    function f
        test %edi, %edi
        je g
        cmp $1, %edi
        ja puts@plt
        cmp $2, %esi
        jb 1f
        jmp *getenv@GOTPCREL(%rip)
    1:  jmp *%rdx
    end f
    """
    plan = elf_images.plan_of(elf_images.assembly(tmp_path, body), "f")
    assert plan.method is Method.RET_SITES
    assert [(site.kind.value, site.condition, site.to) for site in plan.sites] == [
        ("entry", -1, ""),
        ("tail", 4, "g"),
        ("tail", 7, "puts"),
        ("tail", -1, "getenv"),
        ("tail", -1, ""),
    ]


def test_a_jump_out_with_something_on_the_stack_is_not_understood(tmp_path: Path) -> None:
    """A tail call leaves nothing on the stack."""
    body = "function g\n ret\n end g\n function f\n push %rbx\n test %edi, %edi\n je g\n pop %rbx\n ret\n end f"
    assert "jumps out at +0x3 with a stack pointer that is 8 bytes below that of its entry" in _reason(tmp_path, body)


def test_a_jump_into_the_middle_of_another_function_is_not_understood(tmp_path: Path) -> None:
    """Code that two functions share cannot be told apart at its return."""
    body = "function g\n nop\n 1: ret\n end g\n function f\n test %edi, %edi\n je 1b\n ret\n end f"
    assert "jumps into the middle of g" in _reason(tmp_path, body)


def test_a_function_inside_of_another_is_not_understood(tmp_path: Path) -> None:
    """Calls of the inner one would return at the exits of the outer one."""
    body = "function f\n nop\n function g\n nop\n end g\n ret\n end f"
    assert "has another function, g, inside of it" in _reason(tmp_path, body)


def test_leaving_by_jecxz_is_not_understood(tmp_path: Path) -> None:
    """Its condition is a register's value at that moment, not a flag that the probe is shown a code of."""
    body = "function g\n .Lg: ret\n end g\n function f\n mov %edi, %ecx\n jecxz .Lg\n ret\n end f"
    assert "leaves by jecxz at +0x2" in _reason(tmp_path, body)


def test_a_return_with_a_moved_stack_is_not_understood(tmp_path: Path) -> None:
    """RET must find the stack pointer of the entry, or it is not the return of this call."""
    assert "returns at +0x5 with a stack pointer that is 8 bytes below" in _reason(
        tmp_path, "function f\n push %rbx\n mov %rdi, (%rsp)\n ret\n end f"
    )


def test_an_unknown_stack_is_not_understood(tmp_path: Path) -> None:
    """Where two ways bring different depths, or a computation does, nothing is assumed."""
    reason = _reason(tmp_path, "function f\n test %edi, %edi\n je 1f\n push %rbx\n 1: nop\n and $-64, %rsp\n ret\n end f")
    assert "with a stack pointer that is not known there" in reason


def test_a_frame_pointer_brings_the_stack_back(tmp_path: Path) -> None:
    """``and``, alloca and loops that probe pages leave RSP unknown until leave, or lea from RBP."""
    body = """
    function f
        push %rbp
        mov %rsp, %rbp
        push %rbx
        and $-64, %rsp
        sub %rdi, %rsp
        lea -8(%rbp), %rsp
        pop %rbx
        pop %rbp
        ret
    end f
    function g
        push %rbp
        mov %rsp, %rbp
        sub %rdi, %rsp
        leave
        ret
    end g
    function h
        lea -0x8000(%rsp), %r11
    1:  sub $0x1000, %rsp
        orq $0, (%rsp)
        cmp %r11, %rsp
        jne 1b
        sub $0x10, %rsp
        add $0x8010, %rsp
        ret
    end h
    """
    image = elf_images.assembly(tmp_path, body)
    assert [elf_images.plan_of(image, name).method for name in "fgh"] == [Method.RET_SITES] * 3


def test_the_returns_of_cold_parts_are_exits_with_and_without_symbols(tmp_path: Path) -> None:
    """A part is known by its name, or in a stripped file by the stack that is in use at the jump into it."""
    path = elf_images.assembly(tmp_path, _COLD).file.path
    subprocess.run(["strip", "--strip-all", path], check=True)
    stripped = elf_images.program(Path(path))
    named = elf_images.assembly(tmp_path, _COLD)
    assert "f.cold" in named.symbols.by_name
    assert "f.cold" not in stripped.symbols.by_name
    expected = [("entry", "53", -1, ""), ("return", "c3", -1, ""), ("return", "c3", -1, "")]
    assert _shape(elf_images.plan_of(named, "f")) == expected
    assert elf_images.plan_of(stripped, "f") == elf_images.plan_of(named, "f")


def test_a_part_at_an_empty_stack_is_told_from_a_tail_call_by_who_refers_to_it(tmp_path: Path) -> None:
    """Without symbols, code that only this function jumps to is its part; code that is called as well is another function."""
    path = elf_images.assembly(tmp_path, _COLD).file.path
    subprocess.run(["strip", "--strip-all", path], check=True)
    plan = elf_images.plan_of(elf_images.program(Path(path)), "other")
    assert [site.kind.value for site in plan.sites] == ["entry", "return", "return"]

    body = """
    function f
        test %edi, %edi
        jne 9f
        ret
    end f
    function caller
        call 9f
        ret
    end caller
    .section .text.unlikely, "ax", @progbits
    9:  xor %eax, %eax
        ret
    """
    plan = elf_images.plan_of(elf_images.assembly(tmp_path, body), "f")
    assert [(site.kind.value, site.condition, site.to) for site in plan.sites] == [
        ("entry", -1, ""),
        ("tail", 5, ""),
        ("return", -1, ""),
    ]


def test_a_callee_that_does_not_return_is_recognized_by_the_stack(tmp_path: Path) -> None:
    """Behind a call that cannot return, the next block has the depth of whoever jumps to it."""
    body = """
    function fatal
        ud2
    end fatal
    function f
        test %edi, %edi
        je 1f
        sub $24, %rsp
        call fatal
        nopl 0(%rax)
    1:  xor %eax, %eax
        ret
    end f
    """
    plan = elf_images.plan_of(elf_images.assembly(tmp_path, body), "f")
    assert [site.kind.value for site in plan.sites] == ["entry", "return"]


def test_a_function_that_never_returns_has_no_exits(tmp_path: Path) -> None:
    """It is counted, and said to return never."""
    assert _reason(tmp_path, "function f\n push %rbx\n 1: pause\n jmp 1b\n end f") == "f never returns."


def test_a_return_that_nothing_reaches_makes_the_exits_uncertain(tmp_path: Path) -> None:
    """Dead code may be reached in a way that is not understood, so it is not left out silently."""
    reason = _reason(tmp_path, "function f\n push %rbx\n pop %rbx\n ret\n xor %eax, %eax\n ret\n end f")
    assert reason == "f may also leave at +0x5, and how that is reached is not known."


def test_data_among_the_code_is_said_with_its_place(tmp_path: Path) -> None:
    """Bytes that decode to nothing, on the way or beside it, are never taken for instructions."""
    on_the_way = _reason(
        tmp_path, "function f\n push %rbx\n test %edi, %edi\n je 1f\n .byte 6, 6\n 1: pop %rbx\n ret\n end f"
    )
    assert on_the_way == "f has bytes that do not decode at +0x5."
    beside_it = _reason(tmp_path, "function f\n push %rbx\n jmp 1f\n .byte 6, 6\n 1: pop %rbx\n ret\n end f")
    assert beside_it == "f has data among its code at +0x3."


def test_overlapping_instructions_are_not_understood(tmp_path: Path) -> None:
    """A jump into an instruction gives two readings of the same bytes; a probe in either would break the other."""
    body = "function f\n push %rbx\n test %edi, %edi\n je .Lin+1\n .Lin: mov $0xc35b9090, %eax\n pop %rbx\n ret\n end f"
    assert "has overlapping instructions at" in _reason(tmp_path, body)


@pytest.mark.parametrize(
    ("instruction", "why"),
    [
        ("lock incl (%rdi)", "a lock prefix"),
        (".byte 0x2e; nop", "a cs prefix"),
        ("int3", "int3"),
        ("syscall", "syscall"),
        (".byte 0x62, 0xf1, 0x7c, 0x48, 0x28, 0xc0", "EVEX"),
        ("hlt", "hlt"),
    ],
)
def test_an_entry_that_the_kernel_refuses_is_refused_here(tmp_path: Path, instruction: str, why: str) -> None:
    """Refusals are known before the kernel is asked, because it answers only when a process maps the file."""
    message = _refusal(tmp_path, f"function f\n {instruction}\n 1: dec %edi\n jne 1b\n ret\n end f")
    assert message.startswith("f cannot be probed: it begins where the kernel refuses probes on")
    assert why in message


def test_an_entry_that_the_kernel_refuses_is_stepped_over_where_the_next_one_will_do(tmp_path: Path) -> None:
    """The push behind a locked instruction is as good an entry."""
    image = elf_images.assembly(tmp_path, "function f\n lock incl (%rdi)\n push %rbx\n pop %rbx\n ret\n end f")
    assert _shape(elf_images.plan_of(image, "f"))[0] == ("entry", "53", -1, "")


def test_an_exit_that_the_kernel_refuses_leaves_entries_only(tmp_path: Path) -> None:
    """``notrack jmp *%rax`` has a ds prefix; without this exit the rest would be a wrong count."""
    assert "leaves at +0x0, where the kernel refuses probes on instructions with a ds prefix" in _reason(
        tmp_path, "function f\n nop\n notrack jmp *%rax\n end f"
    ).replace("+0x1", "+0x0")


_TABLE = """
    function f
        push %rbx
        {guard}
        lea .Ltable(%rip), %rdx
        movslq (%rdx,%rdi,4), %rax
        add %rdx, %rax
        jmp *%rax
    .La: xor %eax, %eax
        pop %rbx
        ret
    .Lb: mov %edi, %eax
        pop %rbx
        ret
    .Ld: pop %rbx
        ret
    end f
    function g
    .Lg:
        lea .Lnext(%rip), %rax
        ret
    end g
    .section .rodata
    .balign 4
    .Ltable: .long .La - .Ltable, .Lb - .Ltable, .Ld - .Ltable
    .Lnext: .long .Lg - .Lnext, .Lg - .Lnext
"""


@pytest.mark.parametrize("guard", ["cmp $2, %edi\n ja .Ld\n mov %edi, %edi", "and $3, %edi", ""])
def test_a_jump_table_ends_at_its_check_or_where_the_next_thing_begins(tmp_path: Path, guard: str) -> None:
    """All of its places are followed, and nothing behind it."""
    plan = elf_images.plan_of(elf_images.assembly(tmp_path, _TABLE.format(guard=guard)), "f")
    assert (plan.method, [site.kind.value for site in plan.sites]) == (Method.RET_SITES, ["entry", *["return"] * 3])


def test_an_indirect_jump_without_a_table_is_a_tail_call_only_at_an_empty_stack(tmp_path: Path) -> None:
    """With something on the stack it must go to a place in the function, and which one is not known."""
    reason = _reason(tmp_path, "function f\n push %rbx\n mov (%rdi), %rax\n jmp *%rax\n end f")
    assert reason == "f has an indirect jump at +0x4 whose targets are not known."


def test_a_call_through_a_table_of_functions_is_a_tail_call(tmp_path: Path) -> None:
    """A table of addresses is a jump table only if it leads into the function."""
    body = """
    function g
        ret
    end g
    function f
        lea .Lfunctions(%rip), %rdx
        mov (%rdx,%rdi,8), %rax
        jmp *%rax
    end f
    .section .data.rel.ro, "aw"
    .balign 8
    .Lfunctions: .quad g, g
    """
    plan = elf_images.plan_of(elf_images.assembly(tmp_path, body), "f")
    assert [(site.kind.value, site.to) for site in plan.sites] == [("entry", ""), ("tail", "")]


def test_a_function_without_a_size_is_refused(tmp_path: Path) -> None:
    """Where it ends would be a guess."""
    assert "has no size in the symbol table" in _refusal(tmp_path, "function f\n ret")


def test_a_function_outside_of_the_code_is_refused(tmp_path: Path) -> None:
    """A symbol may claim to be a function and lie in data."""
    message = _refusal(tmp_path, ".data\n function f\n .quad 1\n end f")
    assert message == "f cannot be probed: it is not in a part of the file that is mapped executable."


_DISPATCH = """
    function __x86_indirect_thunk_rdx
        jmp *%rdx
    end __x86_indirect_thunk_rdx
    function f
        xor %eax, %eax
    1:  sub $1, %edi
        jb 2f
        movzbl (%rsi), %edx
        inc %rsi
        LOAD
        jmp *%rdx
    first:
        add $1, %eax
        jmp 1b
    second:
        add $2, %eax
        jmp 1b
    2:  ret
    end f
    .section .rodata
    distances: .long 0, second - first
    .section .data.rel.ro, "aw"
    pointer: .quad addresses
"""


@pytest.mark.parametrize(
    ("load", "table"),
    [
        ("lea distances(%rip), %r8\n movslq (%r8,%rdx,4), %rdx\n lea first(%rip), %r8\n add %r8, %rdx", ""),
        ("mov pointer(%rip), %r8\n mov (%r8,%rdx,8), %rdx", "addresses: .quad first, second"),
        ("mov pointer(%rip), %r8\n mov (%r8,%rdx,8), %rdx\n jmp __x86_indirect_thunk_rdx", "addresses: .quad first, second"),
    ],
    ids=["distances", "addresses", "retpoline"],
)
def test_a_computed_goto_is_not_taken_for_a_tail_call(tmp_path: Path, load: str, table: str) -> None:
    """A jump through a pointer may stay inside a function that has labels whose addresses are taken: nothing is guessed."""
    reason = _reason(tmp_path, _DISPATCH.replace("LOAD", load) + (table or "addresses: .quad 0") + "\n")
    assert re.fullmatch(
        r"f has an indirect jump at \+0x[0-9a-f]+ that may stay inside, since addresses inside of it are taken\.", reason
    )


def test_a_jump_through_a_pointer_is_a_tail_call_where_no_label_is_taken(tmp_path: Path) -> None:
    """Without an address inside that such a jump could go to, it leaves."""
    image = elf_images.assembly(tmp_path, "function f\n test %esi, %esi\n je 1f\n jmp *%rdi\n 1: ret\n end f")
    assert _shape(elf_images.plan_of(image, "f")) == [
        ("entry", "7402", -1, ""),
        ("tail", "ffe7", -1, ""),
        ("return", "c3", -1, ""),
    ]


_RELOCATED = """
    function f
        movabs $value, %rax
        add %rdi, %rax
        ret
    end f
    function g
        movabs $value, %rax
    1:  dec %edi
        jne 1b
        ret
    end g
    .data
    value: .quad 1
"""


def test_what_the_dynamic_linker_writes_carries_no_probe(tmp_path: Path) -> None:
    """The file does not have a text relocation's instruction, of which the kernel would run a copy: another one, or none."""
    image = elf_images.assembly(tmp_path, _RELOCATED, "-Wl,-z,notext")
    plan = elf_images.plan_of(image, "f")
    assert _shape(plan) == [("entry", "4801f8", -1, ""), ("return", "c3", -1, "")]
    with pytest.raises(FailedPrecondition) as caught:
        elf_images.plan_of(image, "g")
    assert "begins where the dynamic linker writes into movabs (a text relocation)" in caught.value.message
