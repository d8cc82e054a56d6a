"""An attach as a process of its own: signals, closed pipes, a full disk, and a colony that goes away and comes back."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable

from support.synthetic_colony import SyntheticColony


def within_a_minute(test: Callable[[SyntheticColony], Awaitable[None]]) -> None:
    """Runs ``test`` with a colony."""

    async def run() -> None:
        async with asyncio.timeout(60), SyntheticColony() as colony:
            colony.durations_ns = [5, 7]
            await test(colony)

    asyncio.run(run())


async def attach(colony: SyntheticColony, *options: str, duration: str = "60s", stdout: int = PIPE) -> Process:
    """Starts ``coral debug attach``; returns when it says that it is attached."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "coral", "--colony", colony.address, "debug", "attach", "checkout", "-f", "f", "-d", duration,
        *options, stdout=stdout, stderr=PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stderr
    line = await process.stderr.readline()
    assert line.startswith(b"Attached to f of checkout"), line + await process.stderr.read()
    return process


def test_ctrl_c_detaches_and_prints_the_result() -> None:
    """The first SIGINT ends the session in order: exit 0, the document on stdout."""

    async def test(colony: SyntheticColony) -> None:
        process = await attach(colony, "-o", "json")
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
        assert process.returncode == 0
        document = json.loads(out)
        assert (document["status"], document["reason_code"], document["ledger"]["stored"]) == ("detached", "user", 2)

    within_a_minute(test)


def test_sigterm_does_the_same_and_exits_143() -> None:
    """SIGTERM detaches too; the exit code says that it was one."""

    async def test(colony: SyntheticColony) -> None:
        process = await attach(colony, "-o", "json")
        process.send_signal(signal.SIGTERM)
        out, _ = await process.communicate()
        assert process.returncode == 143
        assert json.loads(out)["status"] == "detached"

    within_a_minute(test)


def test_a_second_signal_ends_it_at_once() -> None:
    """With a colony that does not answer the detach, the second Ctrl-C does not wait for it."""

    async def test(colony: SyntheticColony) -> None:
        process = await attach(colony)
        asked = asyncio.Event()

        async def silent(_request: object, _context: object) -> None:
            asked.set()
            await asyncio.Event().wait()

        colony.DetachUprobe = silent  # type: ignore[method-assign, assignment]
        await colony.stop()
        await colony.start(colony.address)
        process.send_signal(signal.SIGINT)
        await asked.wait()
        process.send_signal(signal.SIGINT)
        await process.communicate()
        assert process.returncode == 130

    within_a_minute(test)


def test_a_closed_pipe_is_quiet_and_ends_the_session() -> None:
    """When the reader of --follow goes away the session is ended, nothing is complained of, and the exit code is 0."""

    async def test(colony: SyntheticColony) -> None:
        reading, writing = os.pipe()
        process = await attach(colony, "--follow", "-o", "jsonl", stdout=writing)
        os.close(writing)
        assert (await asyncio.to_thread(os.read, reading, 65536)).count(b"\n") == 2
        os.close(reading)
        session = colony.sessions["S1"]
        session.durations_ns.append(9)
        session.changed.set()
        _, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
        assert session.status == "detached"

    within_a_minute(test)


def test_a_full_disk_is_an_error() -> None:
    """A result that cannot be written is exit 1 with a reason, not silence."""

    async def test(colony: SyntheticColony) -> None:
        full = os.open("/dev/full", os.O_WRONLY)
        process = await attach(colony, "-o", "json", duration="1s", stdout=full)
        os.close(full)
        _, err = await process.communicate()
        assert process.returncode == 1
        assert err.splitlines()[-1].startswith(
            b'{"error": {"code": "FAILED_PRECONDITION", "message": "The result cannot be written: No space'
        )

    within_a_minute(test)


def test_a_full_disk_ends_what_is_followed() -> None:
    """Calls that cannot be written are not watched any longer: the session is ended, exit 1 with the reason."""

    async def test(colony: SyntheticColony) -> None:
        full = os.open("/dev/full", os.O_WRONLY)
        process = await attach(colony, "--follow", "-o", "jsonl", stdout=full)
        os.close(full)
        _, err = await process.communicate()
        assert process.returncode == 1
        assert b"The result cannot be written: No space" in err.splitlines()[-1]
        assert [session.status for session in colony.sessions.values()] == ["detached"]

    within_a_minute(test)


def test_a_closed_stdout_is_quiet() -> None:
    """Whoever starts a command without a stdout does not want its output; it does its work and exits as always."""

    async def test(colony: SyntheticColony) -> None:
        line = f"exec {sys.executable} -m coral --colony {colony.address} debug attach checkout -f f -d 1s {{}} >&-"
        for options in ("-o json", "--follow", ""):
            process = await asyncio.create_subprocess_shell(line.format(options), stderr=PIPE)
            _, err = await process.communicate()
            assert (process.returncode, b"Traceback" in err) == (0, False), err

    within_a_minute(test)


def test_a_help_page_that_cannot_be_written() -> None:
    """It too is a sentence and exit 1."""

    async def test(colony: SyntheticColony) -> None:
        line = f"exec {sys.executable} -m coral --help >/dev/full"
        process = await asyncio.create_subprocess_shell(line, stderr=PIPE)
        _, err = await process.communicate()
        assert (process.returncode, err) == (1, b"Error: No space left on device.\n")

    within_a_minute(test)


def test_it_survives_a_restart_of_the_colony() -> None:
    """Reads are tried again until the colony is back; the result is complete, and no event is written twice."""

    async def test(colony: SyntheticColony) -> None:
        following = await attach(colony, "--follow", "-o", "jsonl")
        waiting = await attach(colony, "-o", "json")
        assert following.stdout and following.stderr and waiting.stderr
        lines = [await following.stdout.readline() for _ in range(2)]
        await colony.stop()
        for process in (following, waiting):
            assert process.stderr
            assert b"Trying again" in await process.stderr.readline()
        await colony.start(colony.address)
        for session in colony.sessions.values():
            session.durations_ns.append(9)
            session.end("expired", "deadline")
        rest, _ = await following.communicate()
        out, _ = await waiting.communicate()
        assert [json.loads(line)["duration_ns"] for line in [*lines, *rest.splitlines()]] == [5, 7, 9]
        assert (json.loads(out)["status"], json.loads(out)["ledger"]["stored"]) == ("expired", 3)
        assert (following.returncode, waiting.returncode) == (0, 0)

    within_a_minute(test)


def test_a_colony_that_stays_away_is_exit_5() -> None:
    """Ten seconds after the deadline there is no point in waiting any more."""

    async def test(colony: SyntheticColony) -> None:
        process = await attach(colony, "-o", "json", duration="1s")
        await colony.stop()
        out, err = await process.communicate()
        assert (process.returncode, out) == (5, b"")
        assert json.loads(err.splitlines()[-1])["error"]["code"] == "UNAVAILABLE"

    within_a_minute(test)


async def on_terminal(colony: SyntheticColony, duration: str, *, until: bytes, number: signal.Signals | None) -> str:
    """Attaches on a terminal, sends a signal once ``until`` was drawn; what the terminal got, without styles."""
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "coral", "--colony", colony.address, "debug", "attach", "checkout", "-f", "f", "-d", duration,
        stdout=slave, stderr=PIPE, env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"},
    )  # fmt: skip
    os.close(slave)
    shown = b""

    def read() -> bytes:
        try:
            return os.read(master, 65536)
        except OSError:  # the terminal's other side is closed
            return b""

    while chunk := await asyncio.to_thread(read):
        shown += chunk
        if number and until in shown:
            process.send_signal(number)
            number = None
    os.close(master)
    _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    return re.sub(r"\x1b\[\d*m", "", shown.decode())


def test_the_live_picture_on_a_terminal() -> None:
    """On a terminal the picture is drawn while it runs, removed, and printed once at the end; the cursor is shown again."""

    async def test(colony: SyntheticColony) -> None:
        text = await on_terminal(colony, "1s", until=b"", number=None)
        assert "checkout  f      active, 1 s left      1 instance on 1 host" in text
        assert "Ctrl-C ends the session" in text
        final = text[text.rindex("\x1b[?25h") :]
        assert "checkout  f      expired after" in final
        assert "Ctrl-C" not in final

    within_a_minute(test)


def test_ctrl_c_in_the_live_picture() -> None:
    """It gives way to the result of the session, which was ended."""

    async def test(colony: SyntheticColony) -> None:
        text = await on_terminal(colony, "60s", until=b"Ctrl-C ends", number=signal.SIGINT)
        final = text[text.rindex("\x1b[?25h") :]
        assert "checkout  f      detached after" in final
        assert "ledger  2 entered = 2 returned; 2 stored, nothing lost" in final

    within_a_minute(test)
