"""What cannot be right gets a status code, an exit code, and a sentence that helps, on the wire and on the command line."""

from __future__ import annotations

import functools
import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from support import build, rpc
from support.observe import counted, every_call_stored
from support.stack import Stack
from support.target import Target, running, unique_service
from support.text import changed_text

from coral.wire._generated.colony.v1 import debug_pb2
from coral.wire._generated.mesh.v1 import ebpf_pb2

pytestmark = pytest.mark.kernel

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    """A program that could be attached to, and that no request of this module may touch."""
    with running(build.c_program("loop"), "--calls", 10) as process:
        yield process
        assert changed_text(process.pid) == []


def seconds(value: float) -> Any:
    """A Duration."""
    return duration_pb2.Duration(seconds=int(value), nanos=round((value - int(value)) * 1e9))


# What is wrong, the fields that are wrong, the code that both servers answer with, and words that their sentence must have.
REQUESTS: list[tuple[str, dict[str, Any], Code, list[str]]] = [
    ("duration -5 s", {"duration": seconds(-5)}, Code.INVALID_ARGUMENT, ["-5 s", "between 1 s and 600 s"]),
    ("duration 0", {"duration": seconds(0)}, Code.INVALID_ARGUMENT, ["0 s", "between 1 s and 600 s"]),
    ("duration 0.999 s", {"duration": seconds(0.999)}, Code.INVALID_ARGUMENT, ["between 1 s and 600 s"]),
    ("duration 601 s", {"duration": seconds(601)}, Code.INVALID_ARGUMENT, ["601 s", "between 1 s and 600 s"]),
    ("no service", {"service_name": ""}, Code.INVALID_ARGUMENT, ["service_name"]),
    ("no function", {"function_name": ""}, Code.INVALID_ARGUMENT, ["function_name"]),
    ("100 kB service", {"service_name": "s" * 100_000}, Code.INVALID_ARGUMENT, ["service_name", "100,000", "1,024"]),
    ("100 kB function", {"function_name": "f" * 100_000}, Code.INVALID_ARGUMENT, ["function_name", "100,000", "1,024"]),
    ("control character", {"function_name": "wo\x1b[31mrk"}, Code.INVALID_ARGUMENT, ["function_name", "U+001B"]),
    ("newline", {"service_name": "a\nb"}, Code.INVALID_ARGUMENT, ["service_name", "U+000A"]),
    ("remote sdk_addr", {"sdk_addr": "10.1.2.3:50051"}, Code.INVALID_ARGUMENT, ["sdk_addr", "10.1.2.3:50051"]),
    ("named sdk_addr", {"sdk_addr": "metadata.internal:80"}, Code.INVALID_ARGUMENT, ["sdk_addr", "metadata.internal:80"]),
    ("misspelt function", {"function_name": "wrok"}, Code.NOT_FOUND, ["wrok", "work"]),
    ("unknown service", {"service_name": "no-such-service-anywhere"}, Code.NOT_FOUND, ["no-such-service-anywhere"]),
    ("unknown mode", {"config": ebpf_pb2.UprobeConfig(mode="everything")}, Code.INVALID_ARGUMENT, ["mode", "everything"]),
    (
        "negative filter",
        {"filter": ebpf_pb2.UprobeFilter(min_duration=seconds(-1))},
        Code.INVALID_ARGUMENT,
        ["negative"],
    ),
    (
        "filter that nothing passes",
        {"filter": ebpf_pb2.UprobeFilter(min_duration=seconds(2), max_duration=seconds(1))},
        Code.INVALID_ARGUMENT,
        ["max_duration", "min_duration"],
    ),
]


def code_of(error: Any) -> grpc.StatusCode:
    """The status of a blocking call's error."""
    code: grpc.StatusCode = error.code()
    return code


def first_of(stream: Any) -> Any:
    """The first answer of a stream that was sent garbage."""
    return next(stream(b"\xff" * 64, timeout=10))


def refusal(call: Callable[[], Any]) -> Any:
    """The RpcError that a call ends with."""
    with pytest.raises(grpc.RpcError) as refused:
        call()
    return refused.value


@pytest.mark.parametrize(("fields", "code", "words"), [row[1:] for row in REQUESTS], ids=[row[0] for row in REQUESTS])
def test_colony_refuses(stack: Stack, target: Target, fields: dict[str, Any], code: Code, words: list[str]) -> None:
    """A bad AttachUprobe is a status with ErrorInfo and a helpful sentence; it leaves an audit row and no session."""
    request = {"service_name": target.service, "function_name": "work", **fields}
    error = refusal(lambda: rpc.colony(stack.colony, "AttachUprobe", debug_pb2.AttachUprobeRequest(**request)))
    assert error.code() is code, error
    assert [word for word in words if word not in error.details()] == []
    info = rpc.error_info(error)
    assert (info.domain, info.reason) == ("coral", code.name)
    assert info.metadata["hint"]
    if len(request["service_name"]) < 1000:
        assert rpc.sessions(stack.colony, service_name=target.service) == []


@pytest.mark.parametrize(("fields", "code", "words"), [row[1:] for row in REQUESTS], ids=[row[0] for row in REQUESTS])
def test_agent_refuses(stack: Stack, target: Target, fields: dict[str, Any], code: Code, words: list[str]) -> None:
    """The agent does not rely on the colony: it refuses the same requests with the same codes."""
    request = {"service_name": target.service, "function_name": "work", **fields}
    error = refusal(lambda: rpc.agent(stack.agent, "StartUprobeCollector", ebpf_pb2.StartUprobeCollectorRequest(**request)))
    assert error.code() is code, error
    assert [word for word in words if word not in error.details()] == []
    assert rpc.error_info(error).domain == "coral"


def test_refused_attach_is_audited(stack: Stack, target: Target) -> None:
    """A refused attach leaves a row that says who asked for what, and how it ended."""
    refusal(lambda: rpc.attach(stack.colony, target.service, "no_such_function_to_audit"))
    rows = stack.cli.query(
        "SELECT principal, address, service_name, decision, outcome FROM audit_log "
        "WHERE function_name = 'no_such_function_to_audit' ORDER BY sequence"
    )
    assert [row["outcome"] for row in rows] == ["started", "NOT_FOUND"]
    for row in rows:
        assert row["principal"] not in ("", "anonymous", None)
        assert row["address"]
        assert row["service_name"] == target.service


def test_misspelt_service_gets_the_nearest_name(stack: Stack) -> None:
    """The nearest names of living services are in the sentence."""
    with running(build.c_program("loop"), service=unique_service("checkout")) as target:
        stack.cli.ok("service", "list")
        error = refusal(lambda: rpc.attach(stack.colony, target.service.replace("checkout", "chekout"), "work"))
    assert error.code() is Code.NOT_FOUND
    assert target.service in error.details()


def test_unknown_agent(stack: Stack, target: Target) -> None:
    """An agent that does not exist is NOT_FOUND, with the one that does."""
    error = refusal(lambda: rpc.attach(stack.colony, target.service, "work", agent_id="agent-7"))
    assert error.code() is Code.NOT_FOUND
    assert "agent-7" in error.details()
    assert "agent-1" in error.details()


@pytest.mark.parametrize(
    ("server", "method"),
    [
        ("colony", "/coral.colony.v1.DebugService/AttachUprobe"),
        ("colony", "/coral.colony.v1.DebugService/ListDebugSessions"),
        ("colony", "/coral.colony.v1.RegistryService/RegisterAgent"),
        ("agent", "/coral.mesh.v1.DebugService/StartUprobeCollector"),
        ("agent", "/coral.mesh.v1.DebugService/QueryUprobeEvents"),
    ],
)
@pytest.mark.parametrize(
    "garbage", [b"\xff" * 64, b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x02\xff\xfe"], ids=["tags", "length", "utf8"]
)
def test_garbage(stack: Stack, server: str, method: str, garbage: bytes) -> None:
    """Bytes that are no message are INVALID_ARGUMENT, and the server goes on."""
    with rpc.channel(getattr(stack, server)) as channel:
        call: Any = channel.unary_unary(method)
        error = refusal(lambda: call(garbage, timeout=10))
    assert error.code() is Code.INVALID_ARGUMENT, error
    rpc.wait_until_healthy(getattr(stack, server), 5)


def test_garbage_to_a_stream(stack: Stack) -> None:
    """Streams refuse garbage the same way."""
    for address, method in [
        (stack.colony, "/coral.colony.v1.DebugService/FollowUprobeEvents"),
        (stack.agent, "/coral.mesh.v1.DebugService/StreamUprobeEvents"),
    ]:
        with rpc.channel(address) as channel:
            stream: Any = channel.unary_stream(method)
            error = refusal(functools.partial(first_of, stream))
        assert error.code() is Code.INVALID_ARGUMENT, error


UNKNOWN_IDS: list[tuple[str, str, Any]] = [
    ("colony", "DetachUprobe", debug_pb2.DetachUprobeRequest(session_id="nope")),
    ("colony", "QueryUprobeEvents", debug_pb2.QueryUprobeEventsRequest(session_id="nope")),
    ("colony", "GetDebugResults", debug_pb2.GetDebugResultsRequest(session_id="nope")),
    ("colony", "ListDebugSessions", debug_pb2.ListDebugSessionsRequest(session_id="nope")),
    ("agent", "StopUprobeCollector", ebpf_pb2.StopUprobeCollectorRequest(collector_id="nope")),
    ("agent", "QueryUprobeEvents", ebpf_pb2.QueryUprobeEventsRequest(collector_id="nope")),
]


@pytest.mark.parametrize(("server", "method", "request_"), UNKNOWN_IDS, ids=[row[1] for row in UNKNOWN_IDS])
def test_unknown_id(stack: Stack, server: str, method: str, request_: Any) -> None:
    """An id that nobody knows is NOT_FOUND, named in the sentence."""
    error = refusal(lambda: getattr(rpc, server)(getattr(stack, server), method, request_))
    assert error.code() is Code.NOT_FOUND, error
    assert "nope" in error.details()


def test_bad_queries(stack: Stack, target: Target) -> None:
    """A negative or excessive max_events, a made-up page token and an unknown status are INVALID_ARGUMENT."""
    session_id = rpc.attach(stack.colony, target.service, "work", 60).session_id
    stack.cli.stop(session_id)
    queries: list[tuple[str, Any]] = [
        ("QueryUprobeEvents", debug_pb2.QueryUprobeEventsRequest(session_id=session_id, max_events=-1)),
        ("QueryUprobeEvents", debug_pb2.QueryUprobeEventsRequest(session_id=session_id, max_events=10_001)),
        ("QueryUprobeEvents", debug_pb2.QueryUprobeEventsRequest(session_id=session_id, page_token="made-up")),
        ("ListDebugSessions", debug_pb2.ListDebugSessionsRequest(status="running")),
        ("ListDebugSessions", debug_pb2.ListDebugSessionsRequest(page_token="made-up")),
        ("GetDebugResults", debug_pb2.GetDebugResultsRequest(session_id=session_id, format="xml")),
    ]
    for method, request in queries:
        error = refusal(functools.partial(rpc.colony, stack.colony, method, request))
        assert error.code() is Code.INVALID_ARGUMENT, (method, request, error)


def test_page_token_of_another_query(stack: Stack) -> None:
    """A page token is bound to its query: with other bounds it is refused."""
    with running(build.c_program("loop"), "--calls", 20) as target:
        session_id = rpc.attach(stack.colony, target.service, "work").session_id
        target.run()
        stack.cli.stop(session_id)
    request = debug_pb2.QueryUprobeEventsRequest(session_id=session_id, max_events=5)
    token = rpc.colony(stack.colony, "QueryUprobeEvents", request).next_page_token
    other = debug_pb2.QueryUprobeEventsRequest(session_id=session_id, max_events=5, page_token=token)
    other.start_time.FromSeconds(1)
    error = refusal(lambda: rpc.colony(stack.colony, "QueryUprobeEvents", other))
    assert error.code() is Code.INVALID_ARGUMENT


COMMANDS: list[tuple[str, list[str], int, str, list[str]]] = [
    ("duration without unit", ["SERVICE", "-f", "work", "-d", "10"], 2, "INVALID_ARGUMENT", ["10", "unit"]),
    ("duration -5s", ["SERVICE", "-f", "work", "-d=-5s"], 2, "INVALID_ARGUMENT", ["-5s"]),
    ("duration 0s", ["SERVICE", "-f", "work", "-d", "0s"], 2, "INVALID_ARGUMENT", ["between 1 s and 600 s"]),
    ("duration 601s", ["SERVICE", "-f", "work", "-d", "601s"], 2, "INVALID_ARGUMENT", ["between 1 s and 600 s"]),
    ("duration of words", ["SERVICE", "-f", "work", "-d", "soon"], 2, "INVALID_ARGUMENT", ["soon"]),
    ("misspelt function", ["SERVICE", "-f", "wrok"], 3, "NOT_FOUND", ["wrok", "work"]),
    ("unknown service", ["no-such-service-anywhere", "-f", "work"], 3, "NOT_FOUND", ["no-such-service-anywhere"]),
    ("control character", ["SERVICE", "-f", "wo\x07rk"], 2, "INVALID_ARGUMENT", ["U+0007"]),
    ("100 kB function", ["SERVICE", "-f", "f" * 100_000], 2, "INVALID_ARGUMENT", ["100,000"]),
    ("unknown mode", ["SERVICE", "-f", "work", "--mode", "everything"], 2, "INVALID_ARGUMENT", ["everything"]),
    ("negative limit", ["SERVICE", "-f", "work", "--max-events", "-1"], 2, "INVALID_ARGUMENT", ["max-events"]),
]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code", "words"), [row[1:] for row in COMMANDS], ids=[row[0] for row in COMMANDS]
)
def test_command_refuses(
    stack: Stack, target: Target, arguments: list[str], exit_code: int, code: str, words: list[str]
) -> None:
    """``debug attach`` exits with the code of the status, prints the sentence on stderr and nothing on stdout."""
    line = [target.service if argument == "SERVICE" else argument for argument in arguments]
    outcome = stack.cli.run("debug", "attach", *line, "-o", "json")
    assert (outcome.exit_code, outcome.stdout) == (exit_code, ""), outcome.stderr
    error = outcome.error()
    assert error["code"] == code
    said = f"{error['message']} {error['hint']}"
    assert [word for word in words if word not in said] == []
    assert "\x07" not in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["debug", "atach", "x"], 2, ["attach"]),
        (["debug", "attach"], 2, ["SERVICE"]),
        (["debug", "attach", "x"], 2, ["-f"]),
        (["debug", "session", "get", "nope"], 3, ["nope"]),
        (["debug", "session", "stop", "nope"], 3, ["nope"]),
        (["debug", "session", "events", "nope"], 3, ["nope"]),
        (["debug", "session", "list", "--status", "running"], 2, ["running"]),
        (["db", "query", "SELECT FROM WHERE"], 2, ["syntax error", "WHERE"]),
        (["db", "query", "DROP TABLE debug_sessions"], 2, ["DROP"]),
        (["db", "query", "SELECT 1; SELECT 2"], 2, ["single"]),
        (["db", "query", "SELECT * FROM read_text('/etc/passwd')"], 2, ["read_text"]),
        (["db", "query", "COPY (SELECT 1) TO '/tmp/coral-should-not-exist'"], 2, ["COPY"]),
        (["service", "list", "-o", "yaml"], 2, ["yaml"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_other_commands_refuse(stack: Stack, arguments: list[str], exit_code: int, words: list[str]) -> None:
    """Usage, unknown ids and forbidden SQL: the exit code of the status and a sentence on stderr, for people too."""
    outcome = stack.cli.run(*arguments)
    assert (outcome.exit_code, outcome.stdout) == (exit_code, ""), outcome.stderr
    assert [word for word in words if word not in outcome.stderr] == []
    assert "Traceback" not in outcome.stderr


def test_function_that_cannot_be_probed_says_why(stack: Stack) -> None:
    """A function that is found but has no safe site is FAILED_PRECONDITION, exit 1, and leaves no session."""
    with running(build.c_program("refused")) as target:
        outcome = stack.cli.run("debug", "attach", target.service, "-f", "loops_to_start", "-o", "json")
        assert (outcome.exit_code, outcome.stdout) == (1, ""), outcome.stderr
        error = outcome.error()
        assert error["code"] == "FAILED_PRECONDITION"
        assert "loops_to_start" in error["message"]
        assert rpc.sessions(stack.colony, service_name=target.service) == []


def test_function_whose_returns_cannot_be_told(stack: Stack) -> None:
    """A function with an exit that nobody can decide is entry_only: said in the document, its calls counted as unseen."""
    with running(build.c_program("refused"), "--calls", 90) as target:
        document = stack.cli.attach(target.service, "jumps_anywhere")
        (instance,) = document["collectors"][0]["instances"]
        assert (instance["method"], {site["kind"] for site in instance["sites"]}) == ("entry_only", {"entry"})
        assert instance["reason"]
        assert target.run()["wrong"] == 0
        document = stack.cli.stop(document["session_id"])
        assert target.finish() == 0
        events = stack.cli.events(document["session_id"])
    assert counted(document["ledger"]) == {"entered": 90, "unseen": 90, "emitted": 90, "stored": 90}
    assert {event["event_type"] for event in events} == {"entry"}


def test_process_that_dies_in_between(stack: Stack) -> None:
    """Attaching while the only process dies is answered: by a refusal, or by a session whose ledger balances."""
    answers = set()
    for delay_ms in (0, 0, 1, 2, 4, 8, 16, 30):
        with running(build.c_program("loop")) as target:
            killer = threading.Timer(delay_ms / 1000, target.process.kill)
            killer.start()
            try:
                session_id = rpc.attach(stack.colony, target.service, "work").session_id
                answers.add("active")
                assert stack.cli.stop(session_id)["ledger"]["balanced"] is True
            except grpc.RpcError as error:
                answers.add(code_of(error).name)
            killer.join()
    assert answers <= {"active", "NOT_FOUND", "FAILED_PRECONDITION"}
    rpc.wait_until_healthy(stack.agent, 5)


def test_process_that_is_gone(stack: Stack) -> None:
    """A service whose last process has just ended is NOT_FOUND."""
    with running(build.c_program("loop")) as target:
        stack.cli.ok("service", "list")
        target.kill()
        error = refusal(lambda: rpc.attach(stack.colony, target.service, "work"))
    assert error.code() is Code.NOT_FOUND
    assert target.service in error.details()


def test_sdk_that_hangs(stack: Stack) -> None:
    """An sdk_addr where something listens and never answers delays neither this attach by much nor any other at all."""
    with running(build.c_program("loop"), "--calls", 40) as target, socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        begin = time.monotonic()
        response = rpc.attach(stack.colony, target.service, "work", sdk_addr=f"127.0.0.1:{mute.getsockname()[1]}")
        assert time.monotonic() - begin < 5
        begin = time.monotonic()
        other = rpc.attach(stack.colony, target.service, "work")
        assert time.monotonic() - begin < 2
        assert target.run()["wrong"] == 0
        for session_id in (response.session_id, other.session_id):
            assert stack.cli.stop(session_id)["ledger"]["stored"] == 40


@contextmanager
def lying_sdk(**facts: Any) -> Iterator[str]:
    """The address of a server that says ``facts`` to whoever connects, as JSON in an HTTP answer."""
    body = json.dumps(facts).encode()

    class Liar(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Liar) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def test_sdk_that_lies(stack: Stack) -> None:
    """What answers at an sdk_addr is not believed: its pid and offset change nothing, the agent resolves by itself."""
    with (
        running(build.c_program("recursion"), "--depth", 3) as other,
        running(build.c_program("loop"), "--calls", 40) as target,
        lying_sdk(pid=other.pid, function="work", offset=64) as address,
    ):
        session_id = rpc.attach(stack.colony, target.service, "work", sdk_addr=address).session_id
        assert changed_text(other.pid) == []
        (session,) = rpc.sessions(stack.colony, session_id=session_id)
        (instance,) = session.collectors[0].instances
        assert (instance.pid, instance.status) == (target.pid, "attached")
        offsets = sorted(int(change.rpartition("+")[2], 16) for change in changed_text(target.pid))
        assert offsets == sorted(site.offset for site in instance.sites)
        assert target.run()["wrong"] == 0
        document = stack.cli.stop(session_id)
    assert counted(document["ledger"]) == every_call_stored(40)


def test_coral_is_never_instrumented(stack: Stack) -> None:
    """Coral's own processes are nobody's service, whatever name is tried."""
    for name in ("coral", "python3", "python3.11", "python"):
        try:
            session_id = rpc.attach(stack.colony, name, "PyEval_EvalFrameDefault", 1).session_id
        except grpc.RpcError as error:
            assert code_of(error) in (Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION)
            continue
        document = stack.cli.stop(session_id)
        for collector in document["collectors"]:
            for instance in collector["instances"]:
                command_line = Path(f"/proc/{instance['pid']}/cmdline").read_text()
                assert "coral" not in command_line
