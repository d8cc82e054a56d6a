"""Stripped programs whose symbols are elsewhere: found as the program itself would find them, and counted as ever."""

from __future__ import annotations

import shutil
from pathlib import Path

import grpc
import pytest
from support import build, rpc
from support.debug_images import embed, packed_symbols, place, split
from support.elf_images import program as image_of
from support.observe import counted, every_call_stored, observe
from support.stack import Stack
from support.target import running

pytestmark = pytest.mark.kernel


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program of this test's own, whose ``work`` is not among the symbols that the loader needs."""
    own = tmp_path / "loop"
    shutil.copy2(build.c_program("loop", "-Wl,--build-id", "-static"), own)
    return own


def test_a_debug_file_beside_the_program(stack: Stack, program: Path) -> None:
    """Named by .gnu_debuglink and found in the folder .debug: attached and counted as if nothing had been stripped."""
    split(program, program.parent / ".debug" / "loop.debug", link=True)
    with running(program, "--calls", 300) as target:
        seen = observe(stack, target, "work")
    assert counted(seen.ledger) == every_call_stored(300)
    assert seen.document["collectors"][0]["instances"][0]["function_name"] == "work"


def test_a_debug_file_with_another_content_is_not_used(stack: Stack, program: Path) -> None:
    """The symbols of something else would put breakpoints anywhere, so it is refused, with the reason and the next step.

    Once the right one is there, it is used, though the same question was answered before.
    """
    debug = split(program, program.parent / "loop.debug", link=True)
    right = debug.read_bytes()
    debug.write_bytes(right + b"changed")
    with running(program, "--calls", 10) as target:
        with pytest.raises(grpc.RpcError) as refused:
            rpc.attach(stack.colony, target.service, "work")
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        assert f"{debug} was not used: its CRC is not " in refused.value.details()
        assert "install its debug symbols" in refused.value.details()
        debug.write_bytes(right)
        seen = observe(stack, target, "work")
    assert counted(seen.ledger) == every_call_stored(10)


def test_symbols_packed_into_the_program(stack: Stack, program: Path) -> None:
    """MiniDebugInfo, as on Fedora."""
    embed(program, packed_symbols(program))
    with running(program, "--calls", 300) as target:
        seen = observe(stack, target, "work")
    assert counted(seen.ledger) == every_call_stored(300)


def test_a_debug_file_in_the_root_of_the_process(stack: Stack, program: Path, tmp_path: Path) -> None:
    """By build id below its own /usr/lib/debug, behind an absolute link that means something else outside."""
    root = tmp_path / "root"
    build_id = image_of(program).file.info.build_id
    split(program, place(root / "symbols", build_id))
    (root / "usr" / "lib").mkdir(parents=True)
    (root / "usr" / "lib" / "debug").symlink_to("/symbols")
    shutil.copy2(program, root / "loop")
    with running(Path(shutil.which("chroot") or "chroot"), str(root), "/loop", "--calls", 300) as target:
        assert Path(f"/proc/{target.pid}/root").samefile(root)
        seen = observe(stack, target, "work")
    assert counted(seen.ledger) == every_call_stored(300)
