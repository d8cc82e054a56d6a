"""Landing pads and the depth of the stack, as the tables for the unwinder have them, against what binutils read."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support import build, elf_images

from coral.elf.encoded import Damaged, Reader
from coral.elf.landing import landings
from coral.elf.program import Program
from coral.model.errors import CoralError
from coral.model.site import Method, SiteKind

_BUILDS = [
    ("g++", ("-O2", "-DTRAPS", "-fnon-call-exceptions")),
    ("g++", ("-O2", "-s", "-rdynamic")),
    ("clang++", ("-O0", "-fcf-protection=full")),
]
_DW_REGISTERS = {"rsp": 7, "rbp": 6, "r10": 10, "rbx": 3, "r12": 12, "r13": 13, "r14": 14, "r15": 15}


def _hazards(compiler: str, flags: tuple[str, ...]) -> tuple[Path, Program]:
    path = build.cpp_program("hazards", *flags, compiler=compiler)
    return path, elf_images.program(path)


@pytest.mark.parametrize(("compiler", "flags"), _BUILDS)
def test_the_depth_of_the_stack_is_what_readelf_says(compiler: str, flags: tuple[str, ...]) -> None:
    """For every range and every row of .eh_frame, where the frame lies is what readelf interprets."""
    path, image = _hazards(compiler, flags)
    text = subprocess.run(["readelf", "-wF", str(path)], capture_output=True, text=True, check=True).stdout
    rows = 0
    for block in text.split("\n\n"):
        head = re.search(r"FDE cie=\S+ pc=([0-9a-f]+)\.\.([0-9a-f]+)", block)
        if head is None:
            continue
        start, end = (int(part, 16) for part in head.groups())
        unwinding = image.unwinding(start)
        assert unwinding is not None
        assert (unwinding.start, unwinding.end) == (start, end)
        for at, register, offset in re.findall(r"^([0-9a-f]{16}) (\w+)(?:\+(\d+))?", block, flags=re.MULTILINE):
            found = unwinding.at(int(at, 16))
            if register == "exp":
                assert found.register == -1
            else:
                assert (found.register, found.offset) == (_DW_REGISTERS[register], int(offset)), (hex(start), at)
            rows += 1
    assert rows > 200


@pytest.mark.parametrize(("compiler", "flags"), _BUILDS)
def test_catch_blocks_are_part_of_their_function(compiler: str, flags: tuple[str, ...]) -> None:
    """No return that objdump sees in a function, or in its cold part, is left out, and none has an unknown depth of stack."""
    path, image = _hazards(compiler, flags)
    listed = elf_images.listing(path)
    for name in (
        "_Z19catches_and_returnsl",
        "_Z25catches_inside_of_a_catchl",
        "_Z14in_a_cold_partl",
        "_Z18with_dynamic_framellllllll",
    ):
        found = elf_images.plan_of(image, name)
        assert (found.method, found.reason) == (Method.RET_SITES, "")
        returns = elf_images.returns_of(image, listed, name)
        if f"{name}.cold" in image.symbols.by_name:
            returns |= elf_images.returns_of(image, listed, f"{name}.cold")
        assert returns
        if "-s" in flags:  # the cold parts have no names
            assert elf_images.return_offsets(found) >= returns
        else:
            assert elf_images.return_offsets(found) == returns


@pytest.mark.parametrize(("compiler", "flags"), _BUILDS)
def test_landing_pads_are_where_the_personality_would_look(compiler: str, flags: tuple[str, ...]) -> None:
    """Every landing pad is an instruction of the function or of its cold part; there are many."""
    path, image = _hazards(compiler, flags)
    listed = elf_images.listing(path)
    starts = [int(match, 16) for match in re.findall(r"pc=([0-9a-f]+)\.\.", _readelf(path))]
    pads = set()
    for start in starts:
        unwinding = image.unwinding(start)
        assert unwinding is not None
        found = landings(image.file, unwinding)
        assert found is not None
        for landing in found:
            assert unwinding.start <= landing.start < landing.end <= unwinding.end
            pads.add(landing.pad)
    assert len(pads) > 40
    assert pads <= set(listed)


def _readelf(path: Path) -> str:
    return subprocess.run(["readelf", "-wF", str(path)], capture_output=True, text=True, check=True).stdout


def test_a_landing_pad_returns(tmp_path: Path) -> None:
    """A return behind a landing pad is one of the function's exits, though no instruction leads there."""
    image = elf_images.assembly(tmp_path, _GUARDED)
    found = elf_images.plan_of(image, "guarded")
    assert (found.method, found.reason) == (Method.RET_SITES, "")
    assert [site.kind for site in found.sites] == [SiteKind.ENTRY, SiteKind.RETURN, SiteKind.RETURN]


def test_a_table_of_landing_pads_that_is_not_understood_leaves_the_entry(tmp_path: Path) -> None:
    """Where the table is damaged, there may be returns that only it would lead to: entries alone are seen, and it is said."""
    image = elf_images.assembly(tmp_path, _GUARDED.replace(".byte 0x01 # of call sites", ".byte 0x70 # unknown"))
    found = elf_images.plan_of(image, "guarded")
    assert (found.method, found.reason) == (Method.ENTRY_ONLY, "guarded has a table of landing pads that is not understood.")


def test_pushed_arguments_are_gone_at_a_landing_pad(tmp_path: Path) -> None:
    """The unwinder takes pushed arguments away (DW_CFA_GNU_args_size), so that the stack is as deep as before them."""
    pushed = _GUARDED.replace("call may_throw", "push $1\n push $2\n .cfi_escape 0x2e, 16\n call may_throw").replace(
        "jmp 5f", "add $16, %rsp\n jmp 5f"
    )
    assert elf_images.plan_of(elf_images.assembly(tmp_path, pushed), "guarded").reason == ""
    forgotten = pushed.replace(".cfi_escape 0x2e, 16\n", "\n")
    found = elf_images.plan_of(elf_images.assembly(tmp_path, forgotten), "guarded")
    assert "with a stack pointer that is" in found.reason


def test_the_table_of_frames_is_believed_where_it_follows_the_code(tmp_path: Path) -> None:
    """A frame that is aligned and found again through memory: how deep the stack is at the return, the table alone says."""
    found = elf_images.plan_of(elf_images.assembly(tmp_path, _REALIGNED), "realigned")
    assert (found.method, found.reason) == (Method.RET_SITES, "")
    for lie in (".cfi_def_cfa 10, 8", ""):
        image = elf_images.assembly(tmp_path, _REALIGNED.replace(".cfi_def_cfa 10, 0", lie))
        found = elf_images.plan_of(image, "realigned")
        assert "with a stack pointer that is not known there" in found.reason, lie


def test_a_fibre_switch_without_a_table_is_not_believed(tmp_path: Path) -> None:
    """Hand-written code of which the table does not say what it does to the stack has no known depth at its return."""
    code = """
    function switches
    .cfi_startproc
    push %rbx
    mov %rsp, (%rdi)
    mov (%rsi), %rsp
    pop %rbx
    ret
    .cfi_endproc
    end switches
    """
    found = elf_images.plan_of(elf_images.assembly(tmp_path, code), "switches")
    assert "with a stack pointer that is not known there" in found.reason


def test_damaged_tables_end_in_errors_alone(tmp_path: Path) -> None:
    """Whatever .eh_frame and .gcc_except_table hold, planning a function answers, or raises what callers know."""
    path = elf_images.gcc(tmp_path / "guarded.so", f".text\n{_directives(_GUARDED)}", "-shared", "-nostdlib")
    original = path.read_bytes()
    image = elf_images.program(path)
    answers = set()
    for section in (".eh_frame", ".gcc_except_table"):
        found = image.file.section(section)
        assert found is not None
        start = image.file.file_offset(found.vaddr)
        assert start is not None
        for at in range(start, start + found.size_bytes):
            for value in (0x00, 0xFF):
                changed = tmp_path / "changed.so"
                changed.write_bytes(original[:at] + bytes([value]) + original[at + 1 :])
                try:
                    answers.add(elf_images.plan_of(elf_images.program(changed), "guarded").method)
                except CoralError:
                    answers.add(None)
    assert Method.RET_SITES in answers
    assert Method.ENTRY_ONLY in answers


def test_numbers_that_do_not_end_are_damage() -> None:
    """LEB128 is read up to ten bytes, signed and unsigned; a longer one, or one that is cut off, is damage."""
    assert Reader(b"\xe5\x8e\x26", 0).uleb() == 624485
    assert Reader(b"\xc0\xbb\x78", 0).sleb() == -123456
    for data in (b"", b"\x80", b"\x80" * 11):
        with pytest.raises(Damaged):
            Reader(data, 0).uleb()


def _directives(body: str) -> str:
    text = re.sub(r"^ *function (\S+)$", r".globl \1\n.type \1, @function\n\1:", body, flags=re.MULTILINE)
    return re.sub(r"^ *end (\S+)$", r".size \1, .-\1", text, flags=re.MULTILINE)


_GUARDED = """
    function guarded
    .cfi_startproc
    .cfi_lsda 0x1b, 9f
    push %rbx
    .cfi_def_cfa_offset 16
1:  call may_throw
2:  jmp 5f
    ud2
3:  mov %rax, %rdi
    call __cxa_begin_catch@plt
    pop %rbx
    .cfi_def_cfa_offset 8
    ret
    .cfi_def_cfa_offset 16
5:  pop %rbx
    .cfi_def_cfa_offset 8
    ret
    .cfi_endproc
    end guarded
    function may_throw
    ret
    end may_throw
    .section .gcc_except_table,"a",@progbits
9:  .byte 0xff
    .byte 0xff
    .byte 0x01 # of call sites
    .uleb128 8f-7f
7:  .uleb128 1b-guarded
    .uleb128 2b-1b
    .uleb128 3b-guarded
    .uleb128 0
8:
    .text
"""

_REALIGNED = """
    function realigned
    .cfi_startproc
    lea 8(%rsp), %r10
    .cfi_def_cfa 10, 0
    and $-64, %rsp
    push -8(%r10)
    push %rbp
    mov %rsp, %rbp
    .cfi_escape 0x10, 6, 2, 0x76, 0
    push %r10
    .cfi_escape 0x0f, 3, 0x76, 0x78, 6
    sub $200, %rsp
    call *%rdi
    mov -8(%rbp), %r10
    .cfi_def_cfa 10, 0
    leave
    lea -8(%r10), %rsp
    .cfi_def_cfa 7, 8
    ret
    .cfi_endproc
    end realigned
"""
