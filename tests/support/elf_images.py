"""Compiles small images for the tests of coral.elf, and reads what binutils say about them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from support.build import PROGRAMS, ROOT

from coral.elf.file import ElfFile
from coral.elf.plan import plan
from coral.elf.program import Program
from coral.model.site import FunctionPlan, SiteKind

SOURCES = PROGRAMS / "elf"
_LINE = re.compile(r"^\s*([0-9a-f]+):\t((?:[0-9a-f]{2} )+)\s*(?:\t(.*))?$")


def gcc(output: Path, source: Path | str, *flags: str) -> Path:
    """Compiles C (a file) or assembly (text) into ``output``."""
    if isinstance(source, str):
        path = output.with_suffix(".s")
        path.write_text(source)
        source = path
    _run("gcc", "-w", "-o", str(output), str(source), *flags)
    return output


def assembly(tmp_path: Path, body: str, *flags: str) -> Program:
    """A shared library of assembly in AT&T syntax; ``function NAME`` and ``end NAME`` stand for the usual directives."""
    text = re.sub(r"^ *function (\S+)$", r".globl \1\n.type \1, @function\n\1:", body, flags=re.MULTILINE)
    text = re.sub(r"^ *end (\S+)$", r".size \1, .-\1", text, flags=re.MULTILINE)
    stack = '\n.section .note.GNU-stack,"",@progbits\n'
    return program(gcc(tmp_path / "assembled.so", f".text\n{text}{stack}", "-shared", "-nostdlib", *flags))


def go_build(output: Path, *flags: str) -> Path:
    """Compiles programs/elf/go."""
    go = ROOT / ".venv" / "bin" / "go"
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "CGO_ENABLED": "0"}
    _run(str(go) if go.exists() else "go", "build", "-o", str(output), *flags, ".", cwd=SOURCES / "go", env=environment)
    return output


def go_tool() -> Path:
    """The go command itself, a large Go program with symbols: that of the toolchain which builds the tests."""
    go = ROOT / ".venv" / "bin" / "go"
    root = Path(_run(str(go) if go.exists() else "go", "env", "GOROOT").strip())
    return root / "bin" / "go"


def program(path: Path) -> Program:
    """An image, opened."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return Program(ElfFile(fd, str(path)))
    finally:
        os.close(fd)


def plan_of(image: Program, name: str) -> FunctionPlan:
    """The plan for a function of an image."""
    return plan(image, name)


def listing(path: Path) -> dict[int, tuple[bytes, str]]:
    """Bytes and text of every instruction of a file, by address, as objdump reads it."""
    found: dict[int, tuple[bytes, str]] = {}
    last = 0
    for line in _run("objdump", "-d", "-w", "--insn-width=16", str(path)).splitlines():
        match = _LINE.match(line)
        if match is not None:
            last = int(match[1], 16)
            found[last] = (bytes.fromhex(match[2]), re.sub(r"\s+", " ", (match[3] or "").strip()))
    return found


def returns_of(image: Program, listed: dict[int, tuple[bytes, str]], name: str) -> set[int]:
    """The file offsets of every return that objdump sees in the range of a function's symbol."""
    (function,) = {each.vaddr: each for each in image.symbols.by_name[name]}.values()
    found = set()
    for vaddr in range(function.vaddr, function.end):
        if vaddr in listed and re.match(r"(repz |bnd )?ret", listed[vaddr][1]):
            offset = image.file.file_offset(vaddr)
            assert offset is not None
            found.add(int(offset))
    return found


def return_offsets(planned: FunctionPlan) -> set[int]:
    """The file offsets of a plan's return sites."""
    return {int(site.offset) for site in planned.sites if site.kind is SiteKind.RETURN}


def _run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, env=env, timeout=240)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr}")
    return done.stdout
