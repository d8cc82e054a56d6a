"""The processes that read files: what they answer, and what happens when they fail."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import elf_images
from support.servers import wait_until

from coral.elf.image import ImageKey
from coral.elf.parser import Parser
from coral.elf.plan import plan
from coral.model.errors import AmbiguousName, DeadlineExceeded, FailedPrecondition, NotFound


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
    """The same question about the same content needs no process."""

    async def run() -> None:
        async with Parser() as parser:
            first = await parser.plan(*opened, "leaf"), await parser.identify(*opened)
            assert parser.template_pid is not None
            os.kill(parser.template_pid, signal.SIGKILL)
            assert (await parser.plan(*opened, "leaf"), await parser.identify(*opened)) == first

    asyncio.run(run())


def test_an_image_without_the_name_is_asked_once_while_libraries_are_searched(opened: tuple[int, ImageKey, str]) -> None:
    """A process has a hundred libraries, and a service many processes; nearest names are looked for in none of them."""

    async def run() -> None:
        async with Parser() as parser:
            with pytest.raises(NotFound) as missing:
                await parser.plan(*opened, "with_aloca", advise=False)
            assert (missing.value.hint, missing.value.details) == ("", {})
        with pytest.raises(NotFound) as again:  # the processes have ended, so this comes from memory
            await parser.plan(*opened, "with_aloca", advise=False)
        assert again.value.message == missing.value.message

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


def test_a_reader_that_somebody_killed_is_replaced_unseen(opened: tuple[int, ImageKey, str]) -> None:
    """The out-of-memory killer and the like are no reason to fail a question: a new reader is asked."""

    async def run() -> None:
        async with Parser() as parser:
            await parser.identify(*opened)
            before = parser.reader_pids
            os.kill(before[0], signal.SIGKILL)
            assert (await parser.plan(*opened, "leaf")).name == "leaf"
            assert len(parser.reader_pids) == 1
            assert parser.reader_pids != before

    asyncio.run(run())


def test_a_template_that_died_is_replaced_unseen(opened: tuple[int, ImageKey, str]) -> None:
    """Its readers end with it."""

    async def run() -> None:
        async with Parser() as parser:
            await parser.identify(*opened)
            before = parser.template_pid
            assert before is not None
            (reader,) = parser.reader_pids
            os.kill(before, signal.SIGKILL)
            wait_until("its reader ended", lambda: not _lives(reader), 10)
            assert (await parser.plan(*opened, "leaf")).name == "leaf"
            assert parser.template_pid not in (None, before)

    asyncio.run(run())


def _lives(pid: int) -> bool:
    """Whether a process is there, and no zombie of which only init has to take note."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_reader_that_hangs_is_killed_and_its_file_refused_for_a_while(
    opened: tuple[int, ImageKey, str], tmp_path: Path
) -> None:
    """A stopped process stands for a parse without end. Other files are read meanwhile."""
    other = tmp_path / "other"
    other.write_bytes(Path(opened[2]).read_bytes())

    async def run() -> int:
        async with Parser(limit_s=0.5) as parser:
            await parser.identify(*opened)
            (before,) = parser.reader_pids
            os.kill(before, signal.SIGSTOP)
            with pytest.raises(DeadlineExceeded, match=r"took more than 0\.5 s\. It was given up\.$"):
                await parser.plan(*opened, "leaf")
            with pytest.raises(DeadlineExceeded, match=r"took more than 0\.5 s\. It is not read again for \d+ s\."):
                await parser.plan(*opened, "leaf")
            fd = os.open(other, os.O_RDONLY)
            assert (await parser.plan(fd, ImageKey.of_fd(fd), str(other), "leaf")).name == "leaf"
            os.close(fd)
            return before

    assert not Path(f"/proc/{asyncio.run(run())}").exists()


def test_a_cancelled_request_leaves_nothing_behind(opened: tuple[int, ImageKey, str]) -> None:
    """Its answer cannot be taken for the next one's."""

    async def run() -> None:
        async with Parser() as parser:
            await parser.identify(*opened)
            (reader,) = parser.reader_pids
            os.kill(reader, signal.SIGSTOP)
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


def test_a_path_that_is_no_text_can_be_spoken_of(tmp_path: Path) -> None:
    """File names are bytes; those that are no UTF-8 come as halves of surrogate pairs, which no message may have."""
    script = tmp_path / os.fsdecode(b"caf\xe9")
    script.write_text("#!/bin/sh\n")

    async def run() -> None:
        fd = os.open(script, os.O_RDONLY)
        async with Parser() as parser:
            with pytest.raises(FailedPrecondition, match=r"caf\\udce9 is not an ELF file"):
                await parser.identify(fd, ImageKey.of_fd(fd), str(script))
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
            with pytest.raises((FailedPrecondition, NotFound)):
                await parser.plan(fd, ImageKey.of_fd(fd), "damaged", "leaf")
            assert (await parser.plan(*opened, "leaf")).name == "leaf"
        os.close(fd)

    asyncio.run(run())


def test_no_process_is_left_behind(opened: tuple[int, ImageKey, str]) -> None:
    """Leaving the context ends template and readers, also one that hangs."""

    async def run() -> list[int]:
        async with Parser() as parser:
            await parser.identify(*opened)
            assert parser.template_pid is not None
            os.kill(parser.reader_pids[0], signal.SIGSTOP)
            return [parser.template_pid, *parser.reader_pids]

    assert not [pid for pid in asyncio.run(run()) if Path(f"/proc/{pid}").exists()]
