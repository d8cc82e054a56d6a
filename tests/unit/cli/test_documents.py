"""The JSON documents, whole: their keys and their order are pinned."""

from __future__ import annotations

from coral.cli.documents import (
    agent_document,
    event_document,
    ledger_document,
    list_document,
    row_document,
    service_documents,
    session_document,
)
from coral.model.ledger import Ledger, UnknownInterval
from coral.wire import convert
from coral.wire._generated.colony.v1 import debug_pb2, registry_pb2
from coral.wire._generated.mesh.v1 import ebpf_pb2

T_NS = 1_700_000_000_123_456_789
ROW = {
    "timestamp_ns": T_NS,
    "collector_id": "C1",
    "agent_id": "agent-1",
    "service_name": "checkout",
    "function_name": "main.Pay",
    "event_type": "return",
    "duration_ns": 41_000_000,
    "pid": 4411,
    "tid": 4415,
    "args": [{"name": "amount", "type": "int", "value": "7"}],
    "return_value": {"type": "error", "value": "", "is_error": True, "error_message": "declined"},
    "labels": {"to": "main.x", "exit": "tail_call"},
    "sequence": 2**63,
}
EVENT = {
    "collector_id": "C1",
    "sequence": 2**63,
    "timestamp": "2023-11-14T22:13:20.123456789Z",
    "session_id": "S1",
    "agent_id": "agent-1",
    "service_name": "checkout",
    "function_name": "main.Pay",
    "event_type": "return",
    "duration_ns": 41_000_000,
    "pid": 4411,
    "tid": 4415,
    "args": [{"name": "amount", "type": "int", "value": "7"}],
    "return_value": {"type": "error", "value": "", "is_error": True, "error_message": "declined"},
    "labels": {"exit": "tail_call", "to": "main.x"},
}
LEDGER = Ledger(
    entered=20,
    returned=14,
    open=1,
    no_return=2,
    too_deep=3,
    emitted=7,
    filtered=3,
    sampled_out=2,
    rate_limited=1,
    ring_lost=1,
    stored=5,
    queue_dropped=1,
    orphan_returns=4,
    unknown_intervals=(UnknownInterval(from_ns=T_NS, to_ns=T_NS + 1_000_000_000, cause="the agent was gone"),),
    unseen=0,
    final=True,
)
LEDGER_DOCUMENT = {
    "entered": 20,
    "returned": 14,
    "unreturned": 6,
    "open": 1,
    "no_return": 2,
    "too_deep": 3,
    "emitted": 7,
    "filtered": 3,
    "sampled_out": 2,
    "rate_limited": 1,
    "ring_lost": 1,
    "stored": 5,
    "queue_dropped": 1,
    "in_transit": 1,
    "orphan_returns": 4,
    "unknown_intervals": [
        {"from": "2023-11-14T22:13:20.123456Z", "to": "2023-11-14T22:13:21.123456Z", "cause": "the agent was gone"}
    ],
    "balanced": None,
    "unseen": 0,
}


def test_an_event_is_the_same_from_a_message_and_from_a_batch() -> None:
    """``events`` reads messages, ``--follow`` reads Arrow rows; both give the pinned document."""
    message = convert.uprobe_event(ROW)
    assert event_document(message, "S1") == row_document(ROW, "S1") == EVENT
    assert list(event_document(message, "S1")) == list(row_document(ROW, "S1")) == list(EVENT)


def test_an_event_without_values() -> None:
    """What was not captured is an empty list, null and an empty object."""
    bare = ROW | {"args": [], "return_value": None, "labels": {}}
    document = event_document(convert.uprobe_event(bare), "S1")
    assert document == row_document(bare, "S1") == EVENT | {"args": [], "return_value": None, "labels": {}}


def test_a_ledger() -> None:
    """Every counter in the pinned order; ``balanced`` is null while a time is unknown."""
    document = ledger_document(convert.ledger_to(LEDGER))
    assert document == LEDGER_DOCUMENT
    assert list(document) == list(LEDGER_DOCUMENT)


def test_balanced_is_true_false_or_null() -> None:
    """Three answers: it balances, it does not, it cannot be said yet."""
    for ledger, expected in ((Ledger(final=True), True), (Ledger(entered=1, final=True), False), (Ledger(entered=1), None)):
        assert ledger_document(convert.ledger_to(ledger))["balanced"] is expected


def test_counters_that_are_not_known_are_null() -> None:
    """``open``, ``no_return`` and ``too_deep`` may be absent, which is not zero."""
    document = ledger_document(ebpf_pb2.Ledger(entered=5))
    assert [document[name] for name in ("entered", "open", "no_return", "too_deep")] == [5, None, None, None]


def test_calls_and_ledger_are_of_one_moment() -> None:
    """The results of a running session are read a moment after its ledger; its document does not contradict itself."""
    session = debug_pb2.DebugSession(session_id="S1", ledger=ebpf_pb2.Ledger(entered=12, returned=10, unseen=2))
    results = debug_pb2.GetDebugResultsResponse(statistics=debug_pb2.DebugStatistics(total_calls=15))
    document = session_document(session, results)
    assert (document["statistics"]["calls"], document["ledger"]["returned"], document["ledger"]["unseen"]) == (12, 10, 2)


def test_a_session() -> None:
    """The whole session document."""
    instance = ebpf_pb2.Instance(
        pid=4411,
        start_time_ns=123_450_000_000,
        executable="/opt/checkout",
        build_id="ab",
        image_id="build-id:ab",
        function_name="main.Pay",
        status="exited",
        reason="",
        method="ret_sites",
        sites=[ebpf_pb2.Site(offset=4096, kind="entry"), ebpf_pb2.Site(offset=4160, kind="return", reason="r")],
        exit_status=0,
    )
    session = debug_pb2.DebugSession(
        session_id="S1",
        service_name="checkout",
        function_name="Pay",
        agent_id="agent-1",
        started_at=convert.timestamp(T_NS),
        expires_at=convert.timestamp(T_NS + 60_000_000_000),
        ended_at=convert.timestamp(T_NS + 60_000_000_001),
        status="expired",
        requested_by="ann@desk",
        event_count=5,
        ledger=convert.ledger_to(LEDGER),
        reason="",
        reason_code="deadline",
        collectors=[
            debug_pb2.Collector(
                collector_id="C1",
                agent_id="agent-1",
                status="expired",
                ledger=convert.ledger_to(LEDGER),
                instances=[instance, ebpf_pb2.Instance(pid=5, status="skipped", reason="no such function")],
            )
        ],
    )
    results = debug_pb2.GetDebugResultsResponse(
        statistics=debug_pb2.DebugStatistics(
            total_calls=14,
            errors=1,
            calls_per_second=0.25,
            duration_min=convert.duration(1),
            duration_p50=convert.duration(2),
            duration_p95=convert.duration(3),
            duration_p99=convert.duration(4),
            duration_max=convert.duration(5_000_000_006),
            duration_mean=convert.duration(7),
            duration_sum=convert.duration(8),
        ),
        slow_outliers=[debug_pb2.SlowOutlier(event=convert.uprobe_event(ROW))],
    )
    expected = {
        "session_id": "S1",
        "service_name": "checkout",
        "function_name": "Pay",
        "status": "expired",
        "reason_code": "deadline",
        "reason": "",
        "requested_by": "ann@desk",
        "started_at": "2023-11-14T22:13:20.123456Z",
        "expires_at": "2023-11-14T22:14:20.123456Z",
        "ended_at": "2023-11-14T22:14:20.123456Z",
        "events_removed_at": None,
        "statistics": {
            "calls": 14,
            "errors": 1,
            "calls_per_second": 0.25,
            "duration_ns": {"min": 1, "p50": 2, "p95": 3, "p99": 4, "max": 5_000_000_006, "mean": 7, "sum": 8},
        },
        "ledger": LEDGER_DOCUMENT,
        "slowest": [EVENT],
        "collectors": [
            {
                "collector_id": "C1",
                "agent_id": "agent-1",
                "status": "expired",
                "reason": "",
                "ledger": LEDGER_DOCUMENT,
                "instances": [
                    {
                        "pid": 4411,
                        "start_time_ns": 123_450_000_000,
                        "executable": "/opt/checkout",
                        "build_id": "ab",
                        "image_id": "build-id:ab",
                        "function_name": "main.Pay",
                        "status": "exited",
                        "reason": "",
                        "method": "ret_sites",
                        "sites": [
                            {"offset": 4096, "kind": "entry", "reason": ""},
                            {"offset": 4160, "kind": "return", "reason": "r"},
                        ],
                        "exit_status": 0,
                    },
                    {
                        "pid": 5,
                        "start_time_ns": 0,
                        "executable": "",
                        "build_id": "",
                        "image_id": "",
                        "function_name": "",
                        "status": "skipped",
                        "reason": "no such function",
                        "method": "",
                        "sites": [],
                        "exit_status": None,
                    },
                ],
            }
        ],
    }
    document = session_document(session, results)
    assert document == expected
    assert list(document) == list(expected)


def test_a_running_session_has_not_ended() -> None:
    """Times that are not there are null."""
    document = session_document(debug_pb2.DebugSession(), debug_pb2.GetDebugResultsResponse())
    assert (document["started_at"], document["ended_at"]) == (None, None)


def test_services_are_merged_by_name() -> None:
    """One item per service, whatever the number of hosts that run it; an SDK anywhere is said."""
    entries = [
        registry_pb2.ServiceInfo(name="web", agent_id="b", instances=2, rule="argv0"),
        registry_pb2.ServiceInfo(
            name="web", agent_id="a", instances=1, rule="systemd", sdk_enabled=True, sdk_addr="127.0.0.1:9", sdk_version="1"
        ),
        registry_pb2.ServiceInfo(name="api", agent_id="a", instances=1, rule="argv0"),
    ]
    assert service_documents(entries) == [
        {
            "name": "api",
            "rule": "argv0",
            "instances": 1,
            "agents": ["a"],
            "sdk": {"enabled": False, "addr": "", "version": ""},
        },
        {
            "name": "web",
            "rule": "argv0, systemd",
            "instances": 3,
            "agents": ["a", "b"],
            "sdk": {"enabled": True, "addr": "127.0.0.1:9", "version": "1"},
        },
    ]


def test_an_agent() -> None:
    """The agent document, whole."""
    agent = registry_pb2.Agent(
        agent_id="a",
        address="127.0.0.1:8080",
        status="online",
        version="0.1.0",
        last_seen_at=convert.timestamp(T_NS),
        kernel="6.18",
        methods=["uprobe_multi"],
        hostname="desk",
        boot_id="x",
    )
    assert agent_document(agent) == {
        "agent_id": "a",
        "address": "127.0.0.1:8080",
        "status": "online",
        "version": "0.1.0",
        "last_seen_at": "2023-11-14T22:13:20.123456Z",
        "kernel": "6.18",
        "methods": ["uprobe_multi"],
        "lockdown": None,
    }


def test_a_list() -> None:
    """Items and the token of what follows, null at the end."""
    assert list_document([{"a": 1}]) == {"items": [{"a": 1}], "next_page_token": None}
    assert list_document([], "t") == {"items": [], "next_page_token": "t"}
