"""Command lines, whole: what they print, where, and how they exit. The colony is a real server with made-up sessions."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import date
from decimal import Decimal

import pyarrow as pa
import pytest
from support.colony_thread import colony_in_thread
from support.synthetic_colony import START_NS, SyntheticColony

from coral.__main__ import COMMANDS, GROUPS
from coral.cli.entry import run
from coral.model.errors import FailedPrecondition, PermissionDenied, ResourceExhausted, Unauthenticated
from coral.model.ledger import UnknownInterval

FAR_NS = 4_000_000_000 * 10**9
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def colony(monkeypatch: pytest.MonkeyPatch) -> Iterator[SyntheticColony]:
    """A colony that CORAL_COLONY names."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    with colony_in_thread() as made:
        monkeypatch.setenv("CORAL_COLONY", made.address)
        yield made
    monkeypatch.undo()
    time.tzset()


def coral(*arguments: str) -> int:
    """Runs a command line."""
    return run(arguments, commands=COMMANDS, groups=GROUPS)


def ended(colony: SyntheticColony, session_id: str, durations_ns: list[int]) -> None:
    """Adds a session that ran for two seconds and expired."""
    session = colony.session(
        session_id=session_id,
        service="checkout",
        function="main.Pay",
        started_at_ns=START_NS,
        expires_at_ns=START_NS + 2 * 10**9,
        durations_ns=durations_ns,
    )
    session.end("expired", "deadline")
    session.ended_at_ns = START_NS + 2 * 10**9


def test_attach_prints_the_picture_and_narrates_on_stderr(colony: SyntheticColony, capsys: Capture) -> None:
    """Off a terminal: plain lines about the course on stderr, the result on stdout, exit 0."""
    colony.durations_ns = [1_000_000] * 3
    colony.warning = "1 instance failed."
    assert coral("debug", "attach", "checkout", "-f", "main.Pay", "-d", "1s") == 0
    out, err = capsys.readouterr()
    header, *rest = out.splitlines()
    assert header.startswith("checkout  main.Pay      expired after 1.0")
    assert header.endswith("      1 instance on 1 host")
    assert rest == [
        "calls   3   12/s     p50 1.00 ms   p95 1.00 ms   p99 1.00 ms   max 1.00 ms",
        "latency 1.00 ms █ 1.00 ms",
        "slowest 1.00 ms  22:13:20.001  pid 4411 tid 4415",
        "        1.00 ms  22:13:20.002  pid 4411 tid 4415",
        "        1.00 ms  22:13:20.003  pid 4411 tid 4415",
        "ledger  3 entered = 3 returned; 3 stored, nothing lost",
        "session S1",
    ]
    warning, attached, end = err.splitlines()
    assert warning == "Warning: 1 instance failed."
    assert attached.startswith("Attached to main.Pay of checkout: 1 instance on 1 host, until ")
    assert end == "Session S1 expired."


def test_attach_sends_what_was_asked_for(colony: SyntheticColony, capsys: Capture) -> None:
    """Every option reaches the request; --no-wait prints the document of the active session."""
    options = "-d 1m30s --max-events 5 --sample 3 --min-duration 10ms --max-duration 2s --mode count --accept-cost"
    code = coral(
        "-o",
        "json",
        "debug",
        "attach",
        "checkout",
        "-f",
        "f",
        *options.split(),
        "--agent",
        "a",
        "--reason",
        "why",
        "--no-wait",
    )
    assert code == 0
    assert json.loads(capsys.readouterr().out)["status"] == "active"
    [request] = [request for _, request in colony.requests if request.DESCRIPTOR.name == "AttachUprobeRequest"]
    assert (request.duration.seconds, request.config.max_events, request.config.sample_rate) == (90, 5, 3)
    assert (request.filter.min_duration.nanos, request.filter.max_duration.seconds) == (10_000_000, 2)
    assert (request.config.mode, request.accept_cost, request.agent_id, request.reason) == ("count", True, "a", "why")


def test_attach_leaves_the_default_duration_to_the_colony(colony: SyntheticColony, capsys: Capture) -> None:
    """Without -d the request has no duration; with 0s it has one, which the colony may refuse."""
    coral("debug", "attach", "checkout", "-f", "f", "--no-wait")
    coral("debug", "attach", "checkout", "-f", "f", "--no-wait", "-d", "0s")
    sent = [request for _, request in colony.requests if request.DESCRIPTOR.name == "AttachUprobeRequest"]
    assert [request.HasField("duration") for request in sent] == [False, True]


def test_attach_in_json_is_one_document(colony: SyntheticColony, capsys: Capture) -> None:
    """One session document at the end, with every pinned key."""
    colony.durations_ns = [5, 7]
    assert coral("debug", "attach", "checkout", "-f", "f", "-d", "1s", "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["status"], document["reason_code"]) == ("expired", "deadline")
    assert document["statistics"]["calls"] == document["ledger"]["stored"] == 2
    assert [event["duration_ns"] for event in document["slowest"]] == [7, 5]


def test_follow_writes_an_event_a_line(colony: SyntheticColony, capsys: Capture) -> None:
    """With -o jsonl stdout has events and nothing else."""
    colony.durations_ns = [5, 7]
    assert coral("debug", "attach", "checkout", "-f", "f", "-d", "1s", "--follow", "-o", "jsonl") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(event["session_id"], event["sequence"], event["duration_ns"]) for event in events] == [
        ("S1", 1, 5),
        ("S1", 2, 7),
    ]


def test_follow_for_people(colony: SyntheticColony, capsys: Capture) -> None:
    """A plain line per event, then the picture."""
    colony.durations_ns = [5_000_000]
    assert coral("debug", "attach", "checkout", "-f", "main.Pay", "-d", "1s", "--follow") == 0
    first, header, *_ = capsys.readouterr().out.splitlines()
    assert first == "22:13:20.001000   5.00 ms  pid 4411 tid 4415  main.Pay"
    assert header.startswith("checkout  main.Pay")


@pytest.mark.parametrize(
    ("end", "ring_lost", "code"),
    [
        (("expired", "deadline", ""), 0, 0),
        (("detached", "max_events", "5 events were reported."), 0, 0),
        (("expired", "deadline", ""), 4, 6),
        (("failed", "no_function", "It is gone."), 0, 1),
        (("lost", "agent_gone", "No word from agent-1."), 4, 1),
    ],
)
def test_exit_code_of_an_attach_that_waited(
    colony: SyntheticColony, capsys: Capture, end: tuple[str, str, str], ring_lost: int, code: int
) -> None:
    """6 when calls were lost, 1 when the session failed or was lost, whatever else."""
    colony.end_at_once, colony.ring_lost = end, ring_lost
    assert coral("debug", "attach", "checkout", "-f", "f", "-d", "5s") == code
    reason = f": {end[2]}" if end[2] else "."
    assert capsys.readouterr().err.splitlines()[-1] == f"Session S1 {end[0]}{reason}"


def test_stop_get_and_list(colony: SyntheticColony, capsys: Capture) -> None:
    """The same document from each of them."""
    colony.session(session_id="S1", service="checkout", function="f", expires_at_ns=FAR_NS, durations_ns=[3])
    assert coral("debug", "session", "stop", "S1", "-o", "json") == 0
    stopped = json.loads(capsys.readouterr().out)
    assert (stopped["status"], stopped["reason_code"], stopped["ledger"]["balanced"]) == ("detached", "user", True)
    assert coral("debug", "session", "get", "S1", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == stopped
    assert coral("debug", "session", "list", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == {"items": [stopped], "next_page_token": None}
    assert coral("debug", "session", "list", "--status", "active", "-o", "jsonl") == 0
    assert capsys.readouterr().out == ""


def test_list_for_people(colony: SyntheticColony, capsys: Capture) -> None:
    """Aligned columns without lines or truncation, numbers to the right."""
    for index, count in enumerate((3, 12_345, 1)):
        ended(colony, f"S{index}", [5] * count)
    colony.sessions["S2"].unknown = (UnknownInterval(from_ns=1, to_ns=2, cause="c"),)
    assert coral("debug", "session", "list") == 0
    assert capsys.readouterr().out.splitlines() == [
        "ID  SERVICE   FUNCTION  STATUS   STARTED               CALLS  LOST  BY",
        "S0  checkout  main.Pay  expired  2023-11-14 22:13:20       3     0  ann@desk",
        "S1  checkout  main.Pay  expired  2023-11-14 22:13:20  12,345     0  ann@desk",
        "S2  checkout  main.Pay  expired  2023-11-14 22:13:20       1    0?  ann@desk",
    ]


def test_empty_lists_say_what_to_do(colony: SyntheticColony, capsys: Capture) -> None:
    """Nothing on stdout, a hint on stderr."""
    assert coral("debug", "session", "list") == 0
    assert tuple(capsys.readouterr()) == ("", "No session. Start one with `coral debug attach SERVICE -f FUNCTION`.\n")


def test_events_are_paged_inside(colony: SyntheticColony, capsys: Capture) -> None:
    """--limit 0 reads every page; the default stops at 1,000 and says so; a limit in between is kept exactly."""
    ended(colony, "S1", list(range(1, 12_346)))
    for limit, expected in ((["--limit", "0"], 12_345), ([], 1_000), (["--limit", "7000"], 7_000)):
        assert coral("debug", "session", "events", "S1", "-o", "jsonl", *limit) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [json.loads(line)["sequence"] for line in lines] == list(range(1, expected + 1))


def test_events_in_json_are_one_document(colony: SyntheticColony, capsys: Capture) -> None:
    """The list document, also when it is written page by page or is empty."""
    ended(colony, "S1", [10, 20, 30])
    ended(colony, "S2", [])
    assert coral("debug", "session", "events", "S1", "--limit", "2", "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [event["duration_ns"] for event in document["items"]] == [10, 20]
    assert document["next_page_token"] == "2"
    assert coral("debug", "session", "events", "S2", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == {"items": [], "next_page_token": None}


def test_events_between_times(colony: SyntheticColony, capsys: Capture) -> None:
    """From --since on, before --until."""
    ended(colony, "S1", [10, 20, 30])
    window = ["--since", "2023-11-14T22:13:20.002Z", "--until", "2023-11-14T22:13:20.003Z"]
    assert coral("debug", "session", "events", "S1", *window) == 0
    assert capsys.readouterr().out == "2023-11-14 22:13:20.002000     20 ns  pid 4411 tid 4415  main.Pay\n"
    assert coral("debug", "session", "events", "S1", "--since", "5m") == 0
    assert tuple(capsys.readouterr()) == ("", "No events.\n")


def test_services_and_agents(colony: SyntheticColony, capsys: Capture) -> None:
    """The registry's lists, for people and as lines."""
    assert coral("service", "list") == 0
    assert coral("agent", "list") == 0
    assert capsys.readouterr().out.splitlines() == [
        "NAME      RULE           INSTANCES  AGENTS            SDK",
        "checkout  argv0                  3  agent-1, agent-2  1.2 at 127.0.0.1:9092",
        "pricing   CORAL_SERVICE          1  agent-1           -",
        "ID       ADDRESS         STATUS  VERSION  LAST SEEN            KERNEL   METHODS",
        "agent-1  127.0.0.1:8080  online  0.1.0    2023-11-14 22:13:20  6.18.44  uprobe_multi",
    ]
    assert coral("service", "list", "-ojsonl") == 0
    assert [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()] == ["checkout", "pricing"]


def test_database_query(colony: SyntheticColony, capsys: Capture) -> None:
    """Rows as a table or as JSON values, whatever the types of the columns."""
    colony.table = pa.table(
        {
            "name": ["a", None],
            "n": pa.array([Decimal(12), None], pa.decimal128(38, 0)),
            "at": pa.array([START_NS // 1000, None], pa.timestamp("us", tz="UTC")),
            "day": [date(2026, 1, 2), None],
            "x": [float("nan"), 0.5],
            "raw": [b"\x00\xff", None],
            "labels": pa.array([[("k", "v")], None], pa.map_(pa.string(), pa.string())),
        }
    )
    assert coral("db", "query", "SELECT 1", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "items": [
            {
                "name": "a",
                "n": 12,
                "at": "2023-11-14T22:13:20.000000000Z",
                "day": "2026-01-02",
                "x": None,
                "raw": "AP8=",
                "labels": {"k": "v"},
            },
            {"name": None, "n": None, "at": None, "day": None, "x": 0.5, "raw": None, "labels": None},
        ],
        "next_page_token": None,
    }
    colony.table = pa.table({"name": ["a\x1b[2J", "bb"], "n": [1, 100]})
    assert coral("db", "query", "SELECT 1") == 0
    assert capsys.readouterr().out.splitlines() == ["name        n", "a\\x1b[2J    1", "bb        100"]
    assert coral("db", "query", "DROP TABLE x") == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FailedPrecondition("m"), 1),
        (Unauthenticated("m"), 4),
        (PermissionDenied("m"), 7),
        (ResourceExhausted("m"), 8),
    ],
)
def test_exit_codes_follow_the_status(colony: SyntheticColony, capsys: Capture, error: Exception, code: int) -> None:
    """Each status has its exit code, and in JSON the error is one document on stderr."""
    colony.refuse = error  # type: ignore[assignment]
    assert coral("debug", "attach", "checkout", "-f", "f", "-o", "json") == code
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err) == {"error": {"code": error.code, "message": "m", "hint": "", "details": {}}}  # type: ignore[attr-defined]


def test_not_found_in_both_forms(colony: SyntheticColony, capsys: Capture) -> None:
    """A person gets two lines, a program the error document; both exit 3."""
    assert coral("debug", "attach", "chekout", "-f", "f") == 3
    assert tuple(capsys.readouterr()) == ("", "Error: There is no service 'chekout'.\nDid you mean checkout?\n")
    assert coral("debug", "session", "get", "nope", "-o", "json") == 3
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "NOT_FOUND"


def test_no_colony_is_exit_5(capsys: Capture) -> None:
    """An address where nobody answers is said, with the next step."""
    assert coral("--colony", "127.0.0.1:9", "agent", "list") == 5
    assert capsys.readouterr().err == (
        "Error: The colony at 127.0.0.1:9 cannot be reached: Connection refused.\n"
        "Start one with `coral dev`, or give --colony HOST:PORT, and --ca FILE for one that has TLS.\n"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("debug attach checkout", "Missing option '-f' / '--function'."),
        ("debug attach checkout -f f -d 10", "'10' is not a duration."),
        ("debug attach checkout -f f -d -5", "'-5' is not a duration."),
        ("debug attach checkout -f f --follow --no-wait", "--follow and --no-wait exclude each other."),
        ("debug attach checkout -f f --follow -o json", "--follow writes a line per call"),
        ("debug attach checkout -f f --sample -1", "-1 is not in the range"),
        ("debug session events S1 --since yesterday", "'yesterday' is not a time."),
        ("debug session lst", "No such command 'lst'. Did you mean 'list'?"),
        ("agent list --nope", "No such option '--nope'."),
        ("agent list -o yaml", "'yaml' is not one of 'table', 'json', 'jsonl'."),
        ("--colony nowhere agent list", "'nowhere' is not an address."),
    ],
)
def test_usage_errors_exit_2(capsys: Capture, line: str, message: str) -> None:
    """What cannot be right is refused before anything happens, in a sentence that helps."""
    assert coral(*line.split()) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_usage_errors_in_json(capsys: Capture) -> None:
    """Also when -o json stands behind what is wrong."""
    assert coral("debug", "attach", "checkout", "--nope", "-o", "json") == 2
    assert json.loads(capsys.readouterr().err) == {
        "error": {
            "code": "INVALID_ARGUMENT",
            "message": "No such option '--nope'. Did you mean '--mode'?",
            "hint": "See `coral debug attach --help`.",
            "details": {},
        }
    }


def test_an_argument_that_is_not_text(capsys: Capture) -> None:
    """Bytes that are no UTF-8 cannot travel."""
    assert coral("debug", "attach", "a\udcff", "-f", "f") == 2
    assert capsys.readouterr().err.startswith("Error: The argument 'a\\\\udcff' is not UTF-8.")


def test_global_options_stand_anywhere(colony: SyntheticColony, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Before, between and after the commands; the last one counts, and the option beats the environment."""
    monkeypatch.setenv("CORAL_COLONY", "127.0.0.1:9")
    lines = [
        ["--colony", colony.address, "-o", "jsonl", "agent", "list"],
        ["agent", "--colony", colony.address, "list", "-o", "jsonl"],
        ["-o", "table", "agent", "-o", "json", "list", "-o", "jsonl", "--colony", colony.address, "--no-color", "-v"],
    ]
    for line in lines:
        assert coral(*line) == 0
        assert json.loads(capsys.readouterr().out)["agent_id"] == "agent-1"


def test_version(capsys: Capture) -> None:
    """Anywhere, too."""
    for line in (["--version"], ["debug", "attach", "--version"]):
        assert coral(*line) == 0
        assert capsys.readouterr().out == "coral 0.1.0\n"
