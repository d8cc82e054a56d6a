"""The processes that read, from the outside: what they are confined to, and that nothing they send is trusted."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import elf_images

from coral.elf import readers, sandbox, worker
from coral.elf.image import ImageKey
from coral.elf.parser import Parser
from coral.elf.readers import Reader
from coral.model.errors import CoralError, DeadlineExceeded, FailedPrecondition, Internal

_LENGTH = struct.Struct(">I")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled C program."""
    return elf_images.gcc(tmp_path_factory.mktemp("readers") / "shapes", elf_images.SOURCES / "shapes.c", "-O2")


@pytest.fixture
def opened(shapes: Path) -> Iterator[tuple[int, ImageKey, str]]:
    """That program, open: descriptor, key and path."""
    fd = os.open(shapes, os.O_RDONLY)
    yield fd, ImageKey.of_fd(fd), str(shapes)
    os.close(fd)


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _copies(shapes: Path, folder: Path, count: int) -> list[tuple[int, ImageKey, str]]:
    """Other files of the same content, open; the test's end closes them."""
    found = []
    for number in range(count):
        copy = folder / str(number)
        copy.write_bytes(shapes.read_bytes())
        fd = os.open(copy, os.O_RDONLY)
        found.append((fd, ImageKey.of_fd(fd), str(copy)))
    return found


def _close(opened: list[tuple[int, ImageKey, str]]) -> None:
    for fd, _, _ in opened:
        os.close(fd)


def _link(path: str) -> str:
    return str(Path(path).readlink())


def _assert_confined(pid: int) -> None:
    status = _status(pid)
    nobody = "\t".join([str(sandbox.NOBODY)] * 4)
    assert (status["Uid"], status["Gid"], status["Groups"]) == (nobody, nobody, "")
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Threads"]) == ("1", "1")
    assert list(Path(f"/proc/{pid}/root").iterdir()) == []
    for namespace in ("mnt", "net", "ipc", "uts"):
        assert _link(f"/proc/{pid}/ns/{namespace}") != _link(f"/proc/self/ns/{namespace}")
    interfaces = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"


def _assert_sealed(pid: int, image: str) -> None:
    assert _status(pid)["Seccomp"] == "2"
    limits = dict(line.split("  ", 1) for line in Path(f"/proc/{pid}/limits").read_text().splitlines())
    assert limits["Max data size"].split()[:2] == [str(sandbox.MEMORY_BYTES)] * 2
    assert limits["Max file size"].split()[:2] == limits["Max processes"].split()[:2] == ["0", "0"]
    held = sorted(str(fd.readlink()).split(":")[0] for fd in Path(f"/proc/{pid}/fd").iterdir())
    assert [link for link in held if link != image] == [*["/dev/null"] * 3, "socket"]


@pytest.mark.kernel
def test_the_kernel_says_that_template_and_readers_are_confined(opened: tuple[int, ImageKey, str]) -> None:
    """Another user, no capability, no file system, no network, one thread, a filter, limits, and no descriptor too many."""

    async def run() -> None:
        async with Parser() as parser:
            await parser.identify(*opened)
            assert parser.left_out == []
            assert parser.template_pid is not None
            (reader,) = parser.reader_pids
            _assert_confined(parser.template_pid)
            _assert_confined(reader)
            _assert_sealed(reader, opened[2])

    asyncio.run(run())


def test_a_reader_that_grew_large_ends_after_its_answer(opened: tuple[int, ImageKey, str]) -> None:
    """The answer counts, and the next question has a new one."""

    async def run() -> None:
        async with Parser() as parser:
            assert (await parser.plan(*opened, "leaf")).name == "leaf"
            assert parser.reader_pids == []
            assert (await parser.plan(*opened, "tail")).name == "tail"

    before, readers._IDLE_BYTES = readers._IDLE_BYTES, 1 << 20
    try:
        asyncio.run(run())
    finally:
        readers._IDLE_BYTES = before


def test_readers_are_few(tmp_path: Path, shapes: Path) -> None:
    """The ones that were asked last are kept."""
    images = _copies(shapes, tmp_path, 9)

    async def run() -> None:
        async with Parser() as parser:
            for image in images:
                await parser.identify(*image)
            assert len(parser.reader_pids) == 6

    asyncio.run(run())
    _close(images)


def test_what_a_reader_died_of_is_told_and_its_file_refused_for_a_while(tmp_path: Path, shapes: Path) -> None:
    """By the signal that it brought upon itself; what was found out before stays known."""
    died: list[tuple[int, type[CoralError], str]] = [
        (signal.SIGSEGV, Internal, "ended with status -11"),
        (signal.SIGABRT, Internal, "ended with status -6"),
        (signal.SIGBUS, FailedPrecondition, "was shortened while it was read, or its disk could not be read"),
        (signal.SIGPROF, DeadlineExceeded, "took more than 20 s"),
    ]
    images = _copies(shapes, tmp_path, len(died))

    async def run() -> None:
        async with Parser() as parser:
            for image, (number, error, message) in zip(images, died, strict=True):
                await parser.identify(*image)
                os.kill(parser.reader_pids[-1], number)
                with pytest.raises(error, match=message):
                    await parser.plan(*image, "leaf")
                with pytest.raises(error, match=rf"{message}.* It is not read again for \d+ s\."):
                    await parser.plan(*image, "leaf")
                assert (await parser.identify(*image)).machine == "x86_64"

    asyncio.run(run())
    _close(images)


def _whole(message: object) -> bytes:
    content = json.dumps(message).encode()
    return _LENGTH.pack(len(content)) + content


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", EOFError),
        (b"\0\0", EOFError),
        (_LENGTH.pack(100) + b"[", EOFError),
        (_LENGTH.pack(0xFFFFFFFF), ValueError),
        (_LENGTH.pack(3) + b"\xff\xff\xff", ValueError),
        (_LENGTH.pack(100_000) + b"[" * 100_000, ValueError),
        (_LENGTH.pack(5_000) + b"1" * 5_000, ValueError),
        (_whole([1, 2]), ValueError),
        (_whole("ok"), ValueError),
    ],
)
def test_noise_instead_of_an_answer_is_an_error(sent: bytes, error: type[Exception]) -> None:
    """Of the kinds that the agent expects, without an effort that the sender may choose."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        reader = Reader(0, os.open(os.devnull, os.O_RDONLY), ours)
        with pytest.raises(error):
            reader.exchange(b"{}", [], 5)
        reader.forget()


def test_an_answer_that_trickles_is_late_all_the_same() -> None:
    """The limit is one of the whole answer."""
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def trickle() -> None:
        theirs.sendall(_LENGTH.pack(1000))
        while not stop.wait(0.05):
            theirs.sendall(b" ")

    sender = threading.Thread(target=trickle)
    sender.start()
    reader = Reader(0, os.open(os.devnull, os.O_RDONLY), ours)
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        reader.exchange(b"{}", [], 0.5)
    assert 0.4 < time.monotonic() - start < 5
    stop.set()
    sender.join()
    reader.forget()
    theirs.close()


def test_a_plan_that_does_not_fit_the_file_is_refused(tmp_path: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that was taken over cannot have a probe put where its file has no such instruction; it is not asked again."""
    lies: list[tuple[Callable[[dict[str, Any]], object], str]] = [
        (
            lambda plan: plan["sites"][0].update(offset=plan["sites"][0]["offset"] + 1),
            "the file does not have the instruction",
        ),
        (lambda plan: plan["sites"][0].update(offset=1 << 40), "the file does not have the instruction at 0x10000000000"),
        (lambda plan: plan.update(sites=[]), "a plan with 0 entries"),
        (lambda plan: plan.update(name=["leaf"]), r"FunctionPlan\.name is not text"),
    ]
    images = _copies(shapes, tmp_path, len(lies))
    exchange = Reader.exchange

    async def run() -> None:
        async with Parser() as parser:
            for image, (lie, complaint) in zip(images, lies, strict=True):

                def lying(self: Reader, *arguments: Any, lie: Callable[[dict[str, Any]], object] = lie) -> dict[str, Any]:
                    answer = exchange(self, *arguments)
                    lie(answer["ok"])
                    return answer

                monkeypatch.setattr(Reader, "exchange", lying)
                with pytest.raises(Internal, match=f"an answer that cannot be: {complaint}"):
                    await parser.plan(*image, "leaf")
                assert parser.reader_pids == []
                with pytest.raises(Internal, match="It is not read again for"):
                    await parser.plan(*image, "leaf")

    asyncio.run(run())
    _close(images)


def test_a_template_that_cannot_fork_says_why_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host may have no room for one more process, for a moment."""

    def full() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    monkeypatch.setattr(os, "fork", full)
    template = threading.Thread(target=worker._run_template, args=(theirs,))
    template.start()
    for _ in range(2):
        socket.send_fds(ours, [b"f"], [0])
        packet, handles, _, _ = socket.recv_fds(ours, 100, 1)
        assert (packet, handles) == (b"Resource temporarily unavailable", [])
    ours.close()
    template.join()
    theirs.close()


@pytest.mark.kernel
def test_readers_inherit_no_settings(opened: tuple[int, ImageKey, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Some are secret, and a reader may be taken over."""
    monkeypatch.setenv("CORAL_TOKEN", "secret")

    async def run() -> None:
        async with Parser() as parser:
            await parser.identify(*opened)
            assert parser.template_pid is not None
            assert b"CORAL_" not in _environment(parser.template_pid)

    asyncio.run(run())


def _environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def test_a_template_that_cannot_be_confined_reads_nothing(
    opened: tuple[int, ImageKey, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent says which step failed. A second thread stands for whatever may go wrong: it would stay unconfined."""
    site = Path(opened[2]).parent / "site"
    site.mkdir(exist_ok=True)
    start_a_thread = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    (site / "sitecustomize.py").write_text(start_a_thread)
    monkeypatch.setenv("PYTHONPATH", str(site))

    async def run() -> None:
        async with Parser() as parser:
            with pytest.raises(FailedPrecondition, match="The reader of files has 2 threads, of which one would be confined"):
                await parser.identify(*opened)
            assert parser.reader_pids == []

    asyncio.run(run())
