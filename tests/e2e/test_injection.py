"""Names and texts of people who mean harm come out inert: in tables, live views, JSON, logs, the audit log and errors."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import structlog
from support import build, rpc
from support.inert import PRINTABLE, UNPRINTABLE, assert_inert, json_document, json_lines
from support.running_colony import running_colony
from support.stack import Stack
from support.synthetic_agent import SyntheticAgent, SyntheticCollector
from support.target import running

from coral.__main__ import COMMANDS, GROUPS
from coral.cli.entry import run
from coral.client.colony import ColonyClient
from coral.model.errors import FailedPrecondition, InvalidArgument
from coral.telemetry import logs
from coral.wire._generated.colony.v1 import registry_pb2
from coral.wire._generated.mesh.v1 import ebpf_pb2, inspect_pb2, inspect_pb2_grpc

EVERYTHING = " ".join(UNPRINTABLE)
Capture = pytest.CaptureFixture[str]
_LIVE = re.compile(r"\x1b\[(\?25[hl]|[12]K|\d*A)|\r(?!\n)")
"""What a live view says to a terminal: cursor off and on, clear a line, a line up."""


class HostileInspector(inspect_pb2_grpc.InspectServiceServicer):
    """Says of a program what nobody would want to read."""

    async def ListImages(self, request: Any, context: Any) -> Any:
        image = inspect_pb2.Image(image_id="file:1", path=f"/tmp/{EVERYTHING}", language="c", instances=1, pid=7)
        return inspect_pb2.ListImagesResponse(images=[image])

    async def ListFunctions(self, request: Any, context: Any) -> Any:
        names = sorted((*PRINTABLE, *UNPRINTABLE))
        table = inspect_pb2.FunctionTable(
            name=names,
            demangled=names,
            language=[0] * len(names),
            verdict=[0] * len(names),
            languages=["c"],
            verdicts=[inspect_pb2.Verdict(probeable="no", reason=EVERYTHING, exact=True)],
        )
        return inspect_pb2.ListFunctionsResponse(functions=table, matches=len(names))

    async def ExplainFunction(self, request: Any, context: Any) -> Any:
        image = inspect_pb2.Image(image_id="file:1", path=f"/tmp/{EVERYTHING}", language="c", instances=1, pid=7)
        site = inspect_pb2.ProbeSite(offset=1, kind="entry", reason=EVERYTHING, instruction=EVERYTHING, to=EVERYTHING)
        address = inspect_pb2.FunctionAddress(symbol=EVERYTHING, source_file=EVERYTHING, also_named=[EVERYTHING])
        explanation = inspect_pb2.Explanation(
            image=image, name=EVERYTHING, probeable="no", reason=EVERYTHING, hint=EVERYTHING, language="c",
            method="ret_sites", addresses=[address], sites=[site], symbol_sources=[EVERYTHING], notes=[EVERYTHING],
        )  # fmt: skip
        return inspect_pb2.ExplainFunctionResponse(explanations=[explanation])


class HostileCollector(SyntheticCollector):
    """Has processes with names to match."""

    def instances(self) -> list[ebpf_pb2.Instance]:
        return [
            ebpf_pb2.Instance(
                pid=4411, start_time_ns=1, executable=f"/tmp/{EVERYTHING}", build_id=EVERYTHING, image_id=EVERYTHING,
                function_name=EVERYTHING, status="attached", reason=EVERYTHING, method="ret_sites",
            )
        ]  # fmt: skip


@contextmanager
def _hostile_host(state_dir: Path) -> Iterator[tuple[str, SyntheticAgent]]:
    """A real colony and a hostile agent in a thread; yields where the colony is, and the agent."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def there(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)

    agent = SyntheticAgent(PRINTABLE[0], services=PRINTABLE)
    agent.more_services.append(
        lambda server: inspect_pb2_grpc.add_InspectServiceServicer_to_server(HostileInspector(), server)
    )
    colony = running_colony(state_dir)
    try:
        address = there(colony.__aenter__())
        there(agent.start())
        there(agent.report_to(address))
        yield address, agent
    finally:
        there(agent.kill())
        there(colony.__aexit__(None, None, None))
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def _coral(*arguments: str) -> int:
    return run(arguments, commands=COMMANDS, groups=GROUPS)


def _on_terminal(*arguments: str) -> str:
    """What a command writes when stdout is a terminal."""
    master, slave = os.openpty()
    written = bytearray()

    def read() -> None:
        while True:
            try:
                chunk = os.read(master, 1 << 16)
            except OSError:  # EIO: the other end is closed
                return
            written.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    with open(slave, "w", encoding="utf-8") as terminal, redirect_stdout(terminal):
        assert terminal.isatty()
        _coral(*arguments)
    reader.join(10)
    os.close(master)
    return written.decode()


def test_no_command_lets_them_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """From a hostile agent over a real colony: as a table, on a terminal, as JSON and as lines, and in the audit log."""
    monkeypatch.setenv("COLUMNS", "200")
    with _hostile_host(tmp_path / "state") as (address, agent):
        monkeypatch.setenv("CORAL_COLONY", address)
        monkeypatch.setattr("support.synthetic_agent.SyntheticCollector", HostileCollector)
        sessions = []
        for name in PRINTABLE:
            arguments = ("debug", "attach", name, "-f", name, "--no-wait", "--reason", name, "-o", "json")
            assert _coral(*arguments) == 0, capsys.readouterr().err
            document = json_document(capsys.readouterr().out)
            assert (document["service_name"], document["function_name"]) == (name, name)
            sessions.append(document["session_id"])
        for collector in agent.collectors.values():
            collector.emit([1_000_000, 2_000_000])
        shown = [
            ("service", "list"), ("agent", "list"), ("function", "list", PRINTABLE[0]), ("debug", "session", "list"),
            ("debug", "info", PRINTABLE[4], "-f", PRINTABLE[4]), ("audit", "query", "--limit", "0"),
            ("db", "query", "SELECT * FROM debug_instances"), ("db", "query", "SELECT chr(27) || '[2J', chr(8238), chr(10)"),
            *(("debug", "session", "get", each) for each in sessions),
            *(("debug", "session", "events", each) for each in sessions),
        ]  # fmt: skip
        for arguments in shown:
            assert _coral(*arguments) == 0, capsys.readouterr().err
            plain = capsys.readouterr()
            assert_inert(plain.out)
            assert_inert(plain.err)
            assert_inert(_on_terminal(*arguments), terminal=True)
            capsys.readouterr()
            for form, read in (("json", json_document), ("jsonl", json_lines)):
                assert _coral(*arguments, "-o", form) == 0, capsys.readouterr().err
                read(capsys.readouterr().out)
        live = _on_terminal("debug", "attach", PRINTABLE[1], "-f", PRINTABLE[0], "-d", "1s", "--follow")
        assert PRINTABLE[1] in live
        assert_inert(_LIVE.sub("", live), terminal=True)
        assert not any(steering in live for steering in ("\x1b[2J", "\x1b[1;1H", "\x1b]", "\u202e", "\u200b"))
        capsys.readouterr()
        assert _coral("service", "list", "-o", "json") == 0
        assert {item["name"] for item in json.loads(capsys.readouterr().out)["items"]} == set(PRINTABLE)
        assert _coral("audit", "query", "--action", "AttachUprobe", "--limit", "0", "-o", "jsonl") == 0
        assert {record["reason"] for record in json_lines(capsys.readouterr().out)} >= set(PRINTABLE)
        assert _coral("db", "query", "SELECT count(*) AS n FROM debug_sessions", "-o", "json") == 0
        assert json.loads(capsys.readouterr().out)["items"] == [{"n": len(PRINTABLE) + 1}]


@pytest.mark.parametrize("name", [*UNPRINTABLE, "x" * 1025, ""])
def test_names_that_cannot_be_are_refused_and_not_repeated(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """On the command line such a name is an error, whose text is inert in every form."""
    monkeypatch.setenv("CORAL_COLONY", "127.0.0.1:1")
    commands = [("debug", "attach", name, "-f", "f"), ("debug", "attach", "s", "-f", name), ("function", "list", name)]
    for arguments in commands:
        for form in ("table", "json"):
            assert _coral(*arguments, "-o", form) != 0
            assert_inert(capsys.readouterr().err)


def test_an_agent_cannot_report_them_and_a_colony_cannot_be_told(tmp_path: Path) -> None:
    """What an agent says of itself and its services is refused field by field; what is free text is kept and shown inert."""

    async def scene() -> None:
        async with running_colony(tmp_path) as address, ColonyClient(address, caller=PRINTABLE[4]) as client:
            for field in ("agent_id", "hostname", "version", "kernel", "boot_id", "address", "lockdown"):
                request = registry_pb2.RegisterAgentRequest(agent_id="a", boot_id="b", address="127.0.0.1:1")
                setattr(request, field, UNPRINTABLE[0])
                with pytest.raises(InvalidArgument) as refused:
                    await client.register(request)
                assert_inert(str(refused.value))
            for field in ("name", "rule", "sdk_version", "sdk_addr"):
                service = registry_pb2.ServiceInfo(name="s", rule="r")
                setattr(service, field, UNPRINTABLE[0])
                request = registry_pb2.RegisterAgentRequest(
                    agent_id="a", boot_id="b", address="127.0.0.1:1", services=[service]
                )
                with pytest.raises(InvalidArgument) as refused:
                    await client.register(request)
                assert_inert(str(refused.value))
            records, _ = await client.query_database("SELECT principal FROM audit_log WHERE action = 'RegisterAgent'")
            for principal in records["principal"].to_pylist():
                assert_inert(principal)

    asyncio.run(scene())


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "console"])
def test_logs_stay_one_inert_line_each(as_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As key, value, message, exception and from libraries, in both forms."""
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: not as_json, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    before = structlog.get_config(), logging.getLogger().handlers[:], logging.getLogger().level
    try:
        logs.configure(stream=out)
        log = structlog.get_logger("test")
        for text in (*PRINTABLE, *UNPRINTABLE):
            log.info("refused", service=text, reason=FailedPrecondition(text), names=[text])
            log.warning(text)
            logging.getLogger("library").warning("%s said %s", "it", text)
        lines = out.getvalue().splitlines()
    finally:
        structlog.configure(**before[0])
        logging.getLogger().handlers[:], level = before[1], before[2]
        logging.getLogger().setLevel(level)
    assert len(lines) == 3 * len((*PRINTABLE, *UNPRINTABLE))
    for line in lines:
        assert_inert(line)
    if as_json:
        assert [json.loads(line)["service"] for line in lines[::3]] == [*PRINTABLE, *UNPRINTABLE]


@pytest.mark.kernel
def test_a_real_process_with_such_names(stack: Stack, tmp_path: Path) -> None:
    """Variable and file name of a process are its user's: it is listed under an inert name, and can be probed by it."""
    program = shutil.copy(build.c_program("loop"), tmp_path / "\x1b]0;owned\x07\n[red]\u202eloop")
    service = f"a\x1b[2J\nb\u202e[red]{os.getpid()}\udcff"
    with running(Path(program), service=service) as target:
        shown = f"a\\x1b[2J\\nb\\u202e[red]{os.getpid()}\\udcff"
        deadline = time.monotonic() + 10
        while shown not in (listed := stack.cli.ok("service", "list").stdout) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert shown in listed
        assert_inert(listed)
        session_id = stack.cli.attach(shown, "work")["session_id"]
        got = stack.cli.ok("debug", "session", "get", session_id)
        assert_inert(got.stdout)
        document = json_document(stack.cli.ok("debug", "session", "get", session_id, "-o", "json").stdout)
        (instance,) = document["collectors"][0]["instances"]
        assert (instance["pid"], instance["status"]) == (target.pid, "attached")
        assert_inert(stack.cli.ok("debug", "info", shown, "-f", "work").stdout)
        assert_inert(stack.cli.run("debug", "info", shown, "-f", "nothing").stderr)
        rpc.wait_for_session(stack.colony, status="active", session_id=session_id)
        stack.cli.stop(session_id)
    for log in stack.state_dir.glob("*.log"):
        for line in log.read_text().split("\n"):
            assert_inert(line)
