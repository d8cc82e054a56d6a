"""What a file says about itself."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest
from support import elf_images

from coral.elf.image import ImageInfo, ImageKey
from coral.model.errors import FailedPrecondition


def test_the_build_id_is_the_identity(tmp_path: Path) -> None:
    """The identity is what readelf calls the build id."""
    path = elf_images.gcc(tmp_path / "shapes", elf_images.SOURCES / "shapes.c", "-Wl,--build-id")
    notes = subprocess.run(["readelf", "-n", str(path)], check=True, capture_output=True, text=True).stdout
    match = re.search(r"Build ID: ([0-9a-f]+)", notes)
    assert match is not None
    assert elf_images.program(path).file.info == ImageInfo(
        image_id=f"build-id:{match[1]}", build_id=match[1], machine="x86_64", language="c", go_version="", pie=True
    )


def test_without_a_build_id_the_whole_content_is_the_identity(tmp_path: Path) -> None:
    """The hash of the file stands in."""
    path = elf_images.gcc(tmp_path / "shapes", elf_images.SOURCES / "shapes.c", "-Wl,--build-id=none", "-no-pie")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert elf_images.program(path).file.info == ImageInfo(
        image_id=f"sha256:{digest}", build_id="", machine="x86_64", language="c", go_version="", pie=False
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is not an ELF file"),
        (b"#!/bin/sh\n", "is not an ELF file"),
        (b"\x7fELF\x01" + bytes(60), "is a 32-bit program"),
    ],
)
def test_what_is_no_64_bit_elf_file_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    """The reason names what it is."""
    path = tmp_path / "it"
    path.write_bytes(content)
    with pytest.raises(FailedPrecondition, match=why):
        elf_images.program(path)


def test_another_machine_is_refused_by_name(tmp_path: Path) -> None:
    """An arm64 program is told from a damaged one."""
    path = elf_images.gcc(tmp_path / "shapes", elf_images.SOURCES / "shapes.c")
    content = bytearray(path.read_bytes())
    content[18:20] = (183).to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(FailedPrecondition, match="is for aarch64"):
        elf_images.program(path)


def test_a_key_names_the_content_and_not_the_path(tmp_path: Path) -> None:
    """A link has the same key; writing in place gives another one."""
    path = tmp_path / "a"
    path.write_bytes(b"1234")
    (tmp_path / "b").hardlink_to(path)
    keys = []
    for name in ("a", "b"):
        fd = os.open(tmp_path / name, os.O_RDONLY)
        keys.append(ImageKey.of_fd(fd))
        os.close(fd)
    assert keys[0] == keys[1]
    os.utime(path, ns=(keys[0].mtime_ns, keys[0].mtime_ns))
    fd = os.open(path, os.O_RDONLY)
    changed = ImageKey.of_fd(fd)
    os.close(fd)
    assert (changed.mtime_ns, changed.ctime_ns > keys[0].ctime_ns) == (keys[0].mtime_ns, True)


def test_a_section_that_lies_behind_the_end_holds_nothing(tmp_path: Path) -> None:
    """Where the compiler's name is said to be at an address of 64 bits, the language is the default one."""
    path = elf_images.gcc(tmp_path / "shapes", elf_images.SOURCES / "shapes.c")
    content = bytearray(path.read_bytes())
    headers_at, count, names = (int.from_bytes(content[at:end], "little") for at, end in ((40, 48), (60, 62), (62, 64)))
    for section in set(range(1, count)) - {names}:
        place = headers_at + 64 * section
        if not any(content[place + 16 : place + 24]):  # not loaded: .comment, and tables
            content[place + 24 : place + 32] = (1 << 63).to_bytes(8, "little")
    path.write_bytes(content)
    assert elf_images.program(path).file.info.language == "c"
