"""Takes the symbols out of an image and puts them elsewhere, as distributions do, with binutils and xz."""

from __future__ import annotations

import contextlib
import lzma
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from coral.elf.file import ElfFile
from coral.elf.image import OpenFile
from coral.elf.program import Program


def split(program: Path, debug: Path, *, link: bool = False) -> Path:
    """Moves what only debuggers need from ``program`` to ``debug``, and has the program name that file if ``link``."""
    debug.parent.mkdir(parents=True, exist_ok=True)
    _objcopy("--only-keep-debug", str(program), str(debug))
    _objcopy("--strip-all", *([f"--add-gnu-debuglink={debug}"] if link else []), str(program))
    return debug


def place(folder: Path, build_id: str) -> Path:
    """Where a debug file of this build id belongs."""
    return folder / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"


def packed_symbols(program: Path) -> bytes:
    """What rpm puts into .gnu_debugdata: an ELF file with the symbols of ``program`` and no code, packed by xz."""
    mini = program.with_suffix(".mini")
    shutil.copy2(program, mini)
    _objcopy("--only-keep-debug", "--remove-section=.debug_*", str(mini))
    return lzma.compress(mini.read_bytes(), lzma.FORMAT_XZ)


def embed(program: Path, content: bytes) -> None:
    """Strips ``program`` and gives it a section .gnu_debugdata."""
    file = program.with_suffix(".xz")
    file.write_bytes(content)
    _objcopy("--strip-all", f"--add-section=.gnu_debugdata={file}", str(program))


def drop_section_headers(program: Path) -> None:
    """What sstrip does: the loader needs no section headers."""
    data = bytearray(program.read_bytes())
    data[0x28:0x30] = bytes(8)  # e_shoff
    data[0x3A:0x40] = bytes(6)  # e_shentsize, e_shnum, e_shstrndx
    program.write_bytes(data)


@contextlib.contextmanager
def opened(*paths: Path, linked: bool = False) -> Iterator[list[OpenFile]]:
    """Files as the worker is given them."""
    files = [OpenFile.of(os.open(path, os.O_RDONLY), str(path), linked=linked) for path in paths]
    try:
        yield files
    finally:
        for file in files:
            os.close(file.fd)


def program_with(path: Path, *debug: Path, linked: bool = False) -> Program:
    """An image together with files that may hold its symbols."""
    with opened(path) as (image,), opened(*debug, linked=linked) as files:
        return Program(ElfFile(image.fd, image.path), debug=files)


def _objcopy(*arguments: str) -> None:
    subprocess.run(["objcopy", *arguments], check=True, capture_output=True, timeout=60)
