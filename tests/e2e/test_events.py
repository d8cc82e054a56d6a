"""Events as they are stored and read: when they happened, which they are, in what order, and in what form."""

from __future__ import annotations

import json
import re
import select
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from support import build, rpc
from support.observe import SLACK_NS, Observation, assert_stored_once, observe, wall_ns
from support.stack import Stack
from support.target import running

from coral.wire._generated.colony.v1 import debug_pb2
from coral.wire._generated.mesh.v1 import ebpf_pb2

pytestmark = pytest.mark.kernel

EVENT_KEYS = [
    "collector_id", "sequence", "timestamp", "session_id", "agent_id", "service_name", "function_name", "event_type",
    "duration_ns", "pid", "tid", "args", "return_value", "labels",
]  # fmt: skip
CALLS = 1500


@pytest.fixture(scope="module")
def seen(stack: Stack) -> Iterator[Observation]:
    """One session of 1,500 calls over 0.75 s, ended."""
    with running(build.c_program("loop"), "--calls", CALLS, "--rate", 2000) as target:
        yield observe(stack, target, "work")


def test_time_is_wall_clock(seen: Observation) -> None:
    """Every event lies in the wall-clock window in which the program worked, to the nanosecond, and not in 1970."""
    times = [wall_ns(event["timestamp"]) for event in seen.events]
    assert min(times) >= seen.truth["wall_from_ns"] - SLACK_NS
    assert max(times) <= seen.truth["wall_to_ns"] + SLACK_NS
    assert max(times) - min(times) > 0.6e9
    assert len({time_ns % 1000 for time_ns in times}) > 100


def test_form_of_an_event(seen: Observation) -> None:
    """Every event has exactly the promised keys, and the session's values in them."""
    session = seen.document
    for event in seen.events:
        assert sorted(event) == sorted(EVENT_KEYS)
    first = seen.events[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", first["timestamp"])
    assert first | {"timestamp": "", "duration_ns": 0} == {
        "collector_id": session["collectors"][0]["collector_id"],
        "sequence": 1,
        "timestamp": "",
        "session_id": session["session_id"],
        "agent_id": "agent-1",
        "service_name": session["service_name"],
        "function_name": "work",
        "event_type": "return",
        "duration_ns": 0,
        "pid": session["collectors"][0]["instances"][0]["pid"],
        "tid": session["collectors"][0]["instances"][0]["pid"],
        "args": [],
        "return_value": None,
        "labels": {},
    }


def test_identity_and_order(stack: Stack, seen: Observation) -> None:
    """Sequences run from 1 without a gap, events come in the order of their times, and the database holds each once."""
    assert sorted(event["sequence"] for event in seen.events) == list(range(1, CALLS + 1))
    order = [(event["timestamp"], event["collector_id"], event["sequence"]) for event in seen.events]
    assert order == sorted(order)
    assert_stored_once(stack, seen.document)


def test_limit_and_window(stack: Stack, seen: Observation) -> None:
    """Without a limit 1,000 events are shown; --since is inclusive and --until exclusive."""
    cli, session_id = stack.cli, seen.document["session_id"]
    listing = ("debug", "session", "events", session_id, "-o", "jsonl")
    assert cli.ok(*listing).jsonl() == seen.events[:1000]
    assert cli.ok(*listing, "--limit", "7").jsonl() == seen.events[:7]
    lower, upper = seen.events[100]["timestamp"], seen.events[200]["timestamp"]
    window = [event for event in seen.events if lower <= event["timestamp"] < upper]
    assert cli.ok(*listing, "--since", lower, "--until", upper).jsonl() == window
    assert cli.ok(*listing, "--limit", "0", "--since", "1h").jsonl() == seen.events
    assert cli.ok(*listing, "--limit", "0", "--until", "1h").jsonl() == []


def test_events_as_one_document(stack: Stack, seen: Observation) -> None:
    """With -o json the events are the items of one list."""
    document = stack.cli.ok("debug", "session", "events", seen.document["session_id"], "--limit", "3", "-o", "json").json()
    assert document["items"] == seen.events[:3]
    assert sorted(document) == ["items", "next_page_token"]


def test_pages_over_grpc(stack: Stack, seen: Observation) -> None:
    """Pages of 400 together are every event once, in order, with the last one saying that there is no more."""
    request = debug_pb2.QueryUprobeEventsRequest(session_id=seen.document["session_id"], max_events=400)
    sizes, sequences = [], []
    while True:
        page = rpc.colony(stack.colony, "QueryUprobeEvents", request)
        sizes.append((len(page.events), page.has_more, bool(page.next_page_token)))
        sequences += [event.sequence for event in page.events]
        if not page.has_more:
            break
        request.page_token = page.next_page_token
    assert sizes == [(400, True, True)] * 3 + [(300, False, False)]
    assert sequences == [event["sequence"] for event in seen.events]


def test_query_on_the_agent(stack: Stack, seen: Observation) -> None:
    """The agent's own window answers the seed's QueryUprobeEvents, with its envelope and the same events."""
    collector_id = seen.document["collectors"][0]["collector_id"]
    answer = rpc.agent(
        stack.agent, "QueryUprobeEvents", ebpf_pb2.QueryUprobeEventsRequest(collector_id=collector_id, max_events=10)
    )
    assert answer.has_more
    assert [event.uprobe_event.sequence for event in answer.events] == [event["sequence"] for event in seen.events[:10]]
    for event in answer.events:
        assert event.WhichOneof("payload") == "uprobe_event"
        assert (event.collector_id, event.agent_id) == (collector_id, "agent-1")
        assert event.timestamp == event.uprobe_event.timestamp
        assert event.uprobe_event.duration_ns >= 1


def test_time_filter_on_the_agent(stack: Stack, seen: Observation) -> None:
    """start_time is inclusive and end_time exclusive on the agent too."""
    collector_id = seen.document["collectors"][0]["collector_id"]
    request = ebpf_pb2.QueryUprobeEventsRequest(collector_id=collector_id, max_events=10_000)
    lower, upper = wall_ns(seen.events[10]["timestamp"]), wall_ns(seen.events[20]["timestamp"])
    request.start_time.FromNanoseconds(lower)
    request.end_time.FromNanoseconds(upper)
    answer = rpc.agent(stack.agent, "QueryUprobeEvents", request)
    assert [event.uprobe_event.sequence for event in answer.events] == [
        event["sequence"] for event in seen.events if lower <= wall_ns(event["timestamp"]) < upper
    ]


def test_statistics(seen: Observation) -> None:
    """The statistics are those of the stored events: exact at the ends, percentiles within 1 %."""
    durations = sorted(event["duration_ns"] for event in seen.events)
    statistics = seen.document["statistics"]
    assert (statistics["calls"], statistics["errors"]) == (CALLS, 0)
    shown = statistics["duration_ns"]
    assert (shown["min"], shown["max"], shown["sum"]) == (durations[0], durations[-1], sum(durations))
    assert shown["mean"] == pytest.approx(sum(durations) / CALLS, abs=1)
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        # any rank next to the exact one will do: which of two neighbours is "the" percentile is a matter of taste
        rank = round(share * CALLS)
        assert durations[rank - 3] * 0.99 <= shown[name] <= durations[rank + 2] * 1.01, name
    assert 0 < statistics["calls_per_second"] <= 2100
    slowest = seen.document["slowest"]
    assert [event["duration_ns"] for event in slowest] == durations[-len(slowest) :][::-1]
    assert all(event in seen.events for event in slowest)


def test_follow_as_it_happens(stack: Stack) -> None:
    """--follow -o jsonl prints events while the session runs, a line each, every one of them once."""
    with running(build.c_program("loop"), "--calls", 1200, "--rate", 400) as target:
        follower = stack.cli.start(
            "debug", "attach", target.service, "-f", "work", "-d", "30s", "--follow", "-o", "jsonl", "--max-events", "1000"
        )
        try:
            rpc.wait_for_session(stack.colony, service_name=target.service, status="active")
            target.go()
            assert follower.stdout is not None
            first = json.loads(follower.stdout.readline())
            age_s = time.time() - datetime.fromisoformat(first["timestamp"][:26] + "+00:00").timestamp()
            rest = follower.stdout.read()  # to its end; communicate() would lose what readline() has read ahead
            assert follower.stderr is not None
            narration = follower.stderr.read()
            follower.wait(20)
        finally:
            follower.kill()
            follower.wait()
        assert target.line()["calls"] == 1200
    assert age_s < 2, "the first event came late"
    assert follower.returncode == 0, narration.decode()
    events = [first, *map(json.loads, rest.decode().splitlines())]
    assert sorted(event["sequence"] for event in events) == list(range(1, 1001))
    assert {tuple(sorted(event)) for event in events} == {tuple(sorted(EVENT_KEYS))}


def test_closed_pipe_is_quiet(stack: Stack, seen: Observation) -> None:
    """A reader that has enough, as head does, is no error worth a word."""
    events = stack.cli.start("debug", "session", "events", seen.document["session_id"], "--limit", "0", "-o", "jsonl")
    assert events.stdout is not None
    assert events.stderr is not None
    events.stdout.readline()
    events.stdout.close()
    narration = events.stderr.read().decode()
    events.wait(20)
    events.stderr.close()
    assert narration == ""


def test_query_while_it_runs(stack: Stack) -> None:
    """A session that is active answers with what it has so far, without waiting for any tick."""
    with running(build.c_program("loop"), "--calls", 5000, "--rate", 1000) as target:
        session_id = stack.cli.attach(target.service, "work")["session_id"]
        target.go()
        deadline = time.monotonic() + 10
        while rpc.sessions(stack.colony, session_id=session_id)[0].ledger.stored < 100:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert select.select([target.process.stdout], [], [], 0)[0] == [], "nothing was stored before the program was done"
        document = stack.cli.session(session_id)
        assert document["status"] == "active"
        assert document["ledger"]["balanced"] is None
        assert 100 <= document["statistics"]["calls"] <= 5000
        assert 100 <= len(stack.cli.events(session_id)) <= 5000
        assert datetime.now(UTC) < datetime.fromisoformat(document["expires_at"])
        assert target.line()["returned"] == 5000
        assert stack.cli.stop(session_id)["ledger"]["stored"] == 5000
