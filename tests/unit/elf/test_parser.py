"""The worker process: what it answers, and what happens when it fails."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import elf_images

from coral.elf.image import ImageKey
from coral.elf.parser import Parser
from coral.elf.plan import plan
from coral.model.errors import AmbiguousName, DeadlineExceeded, FailedPrecondition, Internal, NotFound


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled C program."""
    return elf_images.gcc(tmp_path_factory.mktemp("parser") / "shapes", elf_images.SOURCES / "shapes.c", "-O2", "-g")


@pytest.fixture
def opened(shapes: Path) -> Iterator[tuple[int, ImageKey, str]]:
    """That program, open: descriptor, key and path."""
    fd = os.open(shapes, os.O_RDONLY)
    yield fd, ImageKey.of_fd(fd), str(shapes)
    os.close(fd)


def test_the_worker_answers_as_the_library_does(opened: tuple[int, ImageKey, str]) -> None:
    """Plans and identities cross the socket unchanged."""

    async def run() -> None:
        async with Parser() as parser:
            image = elf_images.program(Path(opened[2]))
            assert await parser.identify(*opened) == image.file.info
            assert await parser.plan(*opened, "switched") == plan(image, "switched")
            assert (await parser.plan(*opened, "switched", library="x.so")).library == "x.so"

    asyncio.run(run())


def test_what_was_answered_is_remembered(opened: tuple[int, ImageKey, str]) -> None:
    """The same question about the same content needs no worker."""

    async def run() -> None:
        async with Parser() as parser:
            first = await parser.plan(*opened, "leaf"), await parser.identify(*opened)
            assert parser.pid is not None
            os.kill(parser.pid, signal.SIGKILL)
            assert (await parser.plan(*opened, "leaf"), await parser.identify(*opened)) == first

    asyncio.run(run())


def test_errors_keep_their_class_and_their_hint(opened: tuple[int, ImageKey, str], tmp_path: Path) -> None:
    """Not found, ambiguous and refused are told apart, with the next step."""

    async def run() -> None:
        async with Parser() as parser:
            with pytest.raises(NotFound) as missing:
                await parser.plan(*opened, "with_aloca")
            assert missing.value.details["nearest"].splitlines()[0] == "with_alloca"
            symbol = ".globl {0}\n.type {0}, @function\n{0}: ret\n.size {0}, 1\n"
            text = symbol.format("a.x") + symbol.format("b.x")
            fd = os.open(elf_images.gcc(tmp_path / "two.so", text, "-shared", "-nostdlib"), os.O_RDONLY)
            with pytest.raises(AmbiguousName, match=r"Choose one: a\.x, b\.x"):
                await parser.plan(fd, ImageKey.of_fd(fd), "two.so", "x")
            os.close(fd)
            script = tmp_path / "script"
            script.write_text("#!/bin/sh\n")
            fd = os.open(script, os.O_RDONLY)
            with pytest.raises(FailedPrecondition, match="is not an ELF file"):
                await parser.identify(fd, ImageKey.of_fd(fd), "script")
            os.close(fd)

    asyncio.run(run())


def test_a_dead_worker_is_reported_and_replaced(opened: tuple[int, ImageKey, str]) -> None:
    """The request that met its death fails; the next one is answered by a new process."""

    async def run() -> None:
        async with Parser() as parser:
            before = parser.pid
            assert before is not None
            os.kill(before, signal.SIGKILL)
            with pytest.raises(Internal, match="ended with status -9"):
                await parser.plan(*opened, "leaf")
            assert (await parser.plan(*opened, "leaf")).name == "leaf"
            assert parser.pid not in (None, before)

    asyncio.run(run())


def test_a_worker_that_hangs_is_killed_and_replaced(opened: tuple[int, ImageKey, str]) -> None:
    """A stopped process stands for a parse without end."""

    async def run() -> int:
        async with Parser(limit_s=20) as parser:
            await parser.identify(*opened)
            before = parser.pid
            assert before is not None
            os.kill(before, signal.SIGSTOP)
            parser._limit_s = 0.2
            with pytest.raises(DeadlineExceeded, match=r"took more than 0\.2 s"):
                await parser.plan(*opened, "leaf")
            parser._limit_s = 20
            assert (await parser.plan(*opened, "leaf")).name == "leaf"
            return before

    assert not Path(f"/proc/{asyncio.run(run())}").exists()


def test_a_cancelled_request_leaves_nothing_behind(opened: tuple[int, ImageKey, str]) -> None:
    """Its answer cannot be taken for the next one's."""

    async def run() -> None:
        async with Parser() as parser:
            await parser.identify(*opened)
            assert parser.pid is not None
            os.kill(parser.pid, signal.SIGSTOP)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await parser.plan(*opened, "leaf")
            assert (await parser.plan(*opened, "tail")).name == "tail"

    asyncio.run(run())


def test_a_file_that_changed_under_its_key_is_refused(opened: tuple[int, ImageKey, str], tmp_path: Path) -> None:
    """Overwriting a binary in place keeps its inode; an answer for other content would put probes into other code."""
    copy = tmp_path / "copy"
    copy.write_bytes(Path(opened[2]).read_bytes())

    async def run() -> None:
        fd = os.open(copy, os.O_RDONLY)
        async with Parser() as parser:
            key = ImageKey.of_fd(fd)
            await parser.identify(fd, key, "copy")
            with copy.open("r+b") as writer:
                writer.seek(100)
                writer.write(b"\x90")
            assert ImageKey.of_fd(fd) != key
            with pytest.raises(FailedPrecondition, match="was changed while it was read"):
                await parser.plan(fd, key, "copy", "leaf")
        os.close(fd)

    asyncio.run(run())


@pytest.mark.parametrize("damage", ["truncated", "zeroed", "wild"])
def test_damaged_files_end_in_an_error_and_never_in_a_plan(
    opened: tuple[int, ImageKey, str], tmp_path: Path, damage: str
) -> None:
    """Hostile input costs a worker at most."""
    content = bytearray(Path(opened[2]).read_bytes())
    if damage == "truncated":
        del content[3000:]
    elif damage == "zeroed":
        content[64:] = bytes(len(content) - 64)
    else:
        content[32:64] = b"\xff" * 32
    path = tmp_path / "damaged"
    path.write_bytes(content)

    async def run() -> None:
        fd = os.open(path, os.O_RDONLY)
        async with Parser() as parser:
            with pytest.raises((FailedPrecondition, NotFound, Internal)):
                await parser.plan(fd, ImageKey.of_fd(fd), "damaged", "leaf")
            assert (await parser.plan(*opened, "leaf")).name == "leaf"
        os.close(fd)

    asyncio.run(run())


def test_the_worker_ends_with_its_parser(opened: tuple[int, ImageKey, str]) -> None:
    """Leaving the context leaves no process."""

    async def run() -> int:
        async with Parser() as parser:
            await parser.identify(*opened)
            assert parser.pid is not None
            return parser.pid

    assert not Path(f"/proc/{asyncio.run(run())}").exists()
