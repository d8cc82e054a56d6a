"""Absurd and changing files: the question about them fails, within its limits, and nothing else does."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from support import elf_images

from coral.elf.image import OpenFile
from coral.elf.parser import Parser
from coral.elf.sandbox import MEMORY_BYTES
from coral.model.errors import CoralError, DeadlineExceeded, FailedPrecondition
from fuzz import hostile
from fuzz.campaign import peak_bytes

_LIMIT_S = 1.5
"""Of CPU time; of time it is twice that."""
_AGENT_GROWS_BYTES = 64 << 20
_CHANGING_BYTES = 512 << 20


def _own_peak_bytes() -> int:
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak
    return peak_bytes()


def test_absurd_images_cost_a_question_each() -> None:
    """Each is answered or refused in time; this process, which stands for the agent, does not grow; others are still read."""

    async def run(true: OpenFile) -> dict[str, str]:
        found = {}
        async with Parser(limit_s=_LIMIT_S) as parser:
            await parser.identify(true.fd, true.key, "true")
            for name, (make, function) in hostile.ABSURD.items():
                fd = make()
                file = OpenFile.of(fd, name)
                asked = time.monotonic()
                try:
                    found[name] = (await parser.plan(fd, file.key, name, function)).method.value
                except CoralError as error:
                    found[name] = error.code
                assert time.monotonic() - asked < 2 * _LIMIT_S + 2, name
                assert all(peak_bytes(pid) < 1.5 * MEMORY_BYTES for pid in parser.reader_pids), name
                os.close(fd)
            assert (await parser.functions([true], pattern="", offset=0, limit=9)).matches >= 0
        return found

    before = _own_peak_bytes()
    with open("/bin/true", "rb") as intact:
        found = asyncio.run(run(OpenFile.of(intact.fileno(), "true")))
    assert peak_bytes() - before < _AGENT_GROWS_BYTES
    assert found.keys() == hostile.ABSURD.keys()
    assert found["8 TiB of nothing"] == "FAILED_PRECONDITION"
    assert not [name for name, outcome in found.items() if outcome == "INTERNAL"]


def test_a_file_that_shrinks_while_it_is_read_is_an_error_and_no_more(tmp_path: Path) -> None:
    """Reading what was cut off kills the reader (SIGBUS); the user is told that the file was changed."""
    path = tmp_path / "growing"
    path.write_bytes(hostile.image([]))
    os.truncate(path, _CHANGING_BYTES)  # without a build id all of it is read, which takes longer than what follows

    async def run(intact: OpenFile, growing: OpenFile) -> None:
        async with Parser() as parser:
            await parser.identify(intact.fd, intact.key, intact.path)
            question = asyncio.create_task(parser.identify(growing.fd, growing.key, growing.path))
            await asyncio.sleep(0.05)
            os.truncate(path, 4096)
            with pytest.raises(FailedPrecondition, match="growing was changed while it was read"):
                await question
            now = OpenFile.of(growing.fd, "growing")
            assert (await parser.identify(now.fd, now.key, now.path)).machine == "x86_64"

    with open("/bin/true", "rb") as intact, path.open("rb") as growing:
        asyncio.run(run(OpenFile.of(intact.fileno(), "true"), OpenFile.of(growing.fileno(), "growing")))


@pytest.mark.parametrize("kind", ["directory", "pipe", "device", "empty", "one byte"])
def test_what_is_no_image_is_refused_without_being_read(tmp_path: Path, kind: str) -> None:
    """Reading a pipe or a device may wait for ever, or do something."""
    path = tmp_path / "thing"
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        path.write_bytes(b"\x7f" * (kind == "one byte"))

    async def run() -> None:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        file = OpenFile.of(fd, kind)
        async with Parser(limit_s=_LIMIT_S) as parser:
            with pytest.raises(FailedPrecondition, match=r"is no regular file\.|is not an ELF file\."):
                await parser.identify(fd, file.key, kind)
        os.close(fd)

    asyncio.run(run())


def test_one_slow_file_does_not_hold_up_another(tmp_path: Path) -> None:
    """While one question runs to its limit, others are answered, and the slow file is refused at once afterwards."""
    shapes = elf_images.gcc(tmp_path / "shapes", elf_images.SOURCES / "shapes.c", "-O2")
    slow_fd = hostile.ABSURD["tangled code"][0]()

    async def run() -> None:
        async with Parser(limit_s=_LIMIT_S) as parser:
            with shapes.open("rb") as opened:
                slow, other = OpenFile.of(slow_fd, "slow"), OpenFile.of(opened.fileno(), "shapes")
                questions = [
                    asyncio.create_task(parser.plan(slow.fd, slow.key, "slow", "tangled", library=str(number)))
                    for number in range(5)
                ]
                await asyncio.sleep(0.1)
                for function in ("leaf", "tail", "switched"):
                    assert (await parser.plan(other.fd, other.key, "shapes", function)).name == function
                assert not any(question.done() for question in questions)
                asked = time.monotonic()
                for error in await asyncio.gather(*questions, return_exceptions=True):
                    assert isinstance(error, DeadlineExceeded)
                assert time.monotonic() - asked < 2 * _LIMIT_S + 2
                assert parser.reader_pids

    asyncio.run(run())
    os.close(slow_fd)
