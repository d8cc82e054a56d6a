"""The picture of a session, as whole text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from coral.cli.live import rendered
from coral.cli.picture import picture, plain, summary
from coral.cli.snapshot import Bucket, Call, Rate, Snapshot, snapshot_of
from coral.model.ledger import Ledger, UnknownInterval
from coral.wire import convert
from coral.wire._generated.colony.v1 import debug_pb2
from coral.wire._generated.mesh.v1 import ebpf_pb2

T_NS = 1_700_000_000_123_000_000
RUNNING = Snapshot(
    session_id="01JDEADBEEF",
    service="checkout",
    function="main.ProcessPayment",
    status="active",
    left_s=2.2,
    lasted_s=10.0,
    instances=2,
    hosts=1,
    calls=13_204,
    calls_per_second=1_320.4,
    p50_ns=212_000,
    p95_ns=1_900_000,
    p99_ns=3_400_000,
    min_ns=104_000,
    max_ns=41_000_000,
    buckets=(
        Bucket(lower_ns=104_000, upper_ns=106_000, count=100),
        Bucket(lower_ns=150_000, upper_ns=152_000, count=4_000),
        Bucket(lower_ns=212_000, upper_ns=214_000, count=8_000),
        Bucket(lower_ns=300_000, upper_ns=304_000, count=1_000),
        Bucket(lower_ns=2_000_000, upper_ns=2_030_000, count=100),
        Bucket(lower_ns=40_900_000, upper_ns=41_100_000, count=4),
    ),
    slowest=(
        Call(duration_ns=41_000_000, timestamp_ns=T_NS, pid=4411, tid=4415),
        Call(duration_ns=8_700_000, timestamp_ns=T_NS - 2_000_000_000, pid=4412, tid=4420),
    ),
    ledger=Ledger(entered=13_207, returned=13_204, open=3, emitted=13_204, stored=13_204),
)
ENDED = replace(
    RUNNING,
    status="expired",
    left_s=None,
    balanced=False,
    ledger=Ledger(
        entered=1_000,
        returned=900,
        open=1,
        no_return=2,
        too_deep=3,
        unseen=94,
        emitted=800,
        filtered=10,
        sampled_out=20,
        rate_limited=30,
        ring_lost=40,
        stored=700,
        queue_dropped=90,
        orphan_returns=5,
        unknown_intervals=(UnknownInterval(from_ns=T_NS, to_ns=T_NS + 1_500_000_000, cause="the agent was gone"),),
        final=True,
    ),
)


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clocks are shown in the local zone; here it is UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_while_it_runs() -> None:
    """Everything that a person wants to see while calls come in."""
    assert plain(picture(RUNNING)) == (
        "checkout  main.ProcessPayment      active, 3 s left      2 instances on 1 host\n"
        "calls   13,204   1,320/s     p50 212 µs   p95 1.90 ms   p99 3.40 ms   max 41.0 ms\n"
        "latency 104 µs ▁ ▄  █ ▁            ▁                    ▁ 41.0 ms\n"
        "                               ╵1 ms           ╵10 ms\n"
        "slowest 41.0 ms  22:13:20.123  pid 4411 tid 4415\n"
        "        8.70 ms  22:13:18.123  pid 4412 tid 4420\n"
        "ledger  13,207 entered = 13,204 returned + 3 still running; 13,204 stored, nothing lost\n"
        "session 01JDEADBEEF\n"
    )


def test_before_the_first_call() -> None:
    """A session without calls shows no latencies rather than zeros."""
    empty = Snapshot(session_id="S", service="a", function="f", status="pending", left_s=59.0, instances=0, hosts=0)
    assert plain(picture(empty)) == (
        "a  f      pending, 59 s left      0 instances on 0 hosts\n"
        "calls   0   0/s\n"
        "ledger  0 entered = 0 returned; 0 stored, nothing lost\n"
        "session S\n"
    )


def test_every_loss_is_said() -> None:
    """What was lost, why, what is unknown, and that the counters do not balance."""
    assert plain(picture(ENDED)).splitlines()[-4:] == [
        "ledger  1,000 entered = 900 returned + 1 still running + 2 that never returned + 3 too deep to follow"
        " + 94 seen at entry only; 700 stored, 10 filtered, 20 sampled out, 10 that never arrived,"
        " 40 lost: the kernel's ring was full, 90 lost on the way to the database, 30 beyond the rate limit,"
        " the counters do not balance",
        "        unknown from 22:13:20.123 to 22:13:21.623: the agent was gone",
        "        and 5 returns of calls that were not followed from their start",
        "session 01JDEADBEEF",
    ]


def test_losses_are_red_and_a_clean_ledger_is_green() -> None:
    """On a terminal the end of the ledger's line has the colour of its meaning."""
    styles = {span.text: span.style for line in picture(RUNNING) for span in line}
    assert styles["nothing lost"] == "green"
    [lost] = [span for line in picture(ENDED) for span in line if "the kernel's ring was full" in span.text]
    assert lost.style == "bold red"


def test_reason_and_notes() -> None:
    """Why a session ended, and which instances are not fully probed: three of them, the rest counted."""
    notes = ("1 instance failed: a", "2 instances skipped: b", "1 instance seen at entry only: c", "agent-2: d", "e")
    shown = plain(picture(replace(ENDED, status="failed", reason="The function is gone.", notes=notes)))
    assert shown.splitlines()[:2] == [
        "checkout  main.ProcessPayment      failed after 10.0 s      2 instances on 1 host",
        "reason  The function is gone.",
    ]
    assert shown.splitlines()[-5:-1] == [
        "note    1 instance failed: a",
        "        2 instances skipped: b",
        "        1 instance seen at entry only: c",
        "        and 2 more: see coral debug session get ID -o json",
    ]


def test_a_narrow_terminal_keeps_the_status() -> None:
    """A header that does not fit is two lines, so that the end of a long name does not push the status out of sight."""
    assert plain(picture(RUNNING, width=60)).splitlines()[:2] == [
        "checkout  main.ProcessPayment",
        "active, 3 s left      2 instances on 1 host",
    ]


def test_names_cannot_steer_the_terminal() -> None:
    """Escape codes in names are shown, and markup is text."""
    odd = replace(RUNNING, service="[red]x[/red]", function="f\x1b]0;t\x07", notes=("n\x1b[2J",))
    text = rendered(picture(odd))
    assert "\x1b" not in text.plain
    assert text.plain.splitlines()[0].startswith("[red]x[/red]  f\\x1b]0;t\\x07 ")


def test_one_value_and_very_wide_ranges() -> None:
    """The histogram has a column for a single duration, and never more than fit, from 1 ns to 10 minutes."""
    one = replace(RUNNING, min_ns=500, max_ns=500, buckets=(Bucket(lower_ns=500, upper_ns=504, count=3),))
    assert plain(picture(one)).splitlines()[2] == "latency 500 ns █ 500 ns"
    wide = replace(
        RUNNING,
        min_ns=1,
        max_ns=600 * 10**9,
        buckets=(Bucket(lower_ns=1, upper_ns=2, count=1), Bucket(lower_ns=590 * 10**9, upper_ns=601 * 10**9, count=1)),
    )
    assert plain(picture(wide)).splitlines()[2:4] == [
        "latency 1 ns █                                  █ 600 s",
        "                ╵10 ns   ╵10 µs   ╵10 ms   ╵10 s",
    ]


def test_summary_line() -> None:
    """One line for logs."""
    assert summary(RUNNING) == "3 s left: 13,204 calls, 1,320/s, p50 212 µs, p99 3.40 ms, max 41.0 ms"
    lossy = replace(RUNNING, max_ns=0, calls=1, calls_per_second=0.25, ledger=Ledger(ring_lost=7))
    assert summary(lossy) == "3 s left: 1 call, 0.2/s, 7 lost: the kernel's ring was full"


def test_rate_is_of_the_last_seconds() -> None:
    """What happened longer ago does not count."""
    rate = Rate()
    assert rate.add(0.0, 100) is None
    assert [rate.add(*seen) for seen in ((1.0, 200), (2.0, 300), (3.0, 400), (10.0, 400), (13.0, 700))] == [
        100.0,
        100.0,
        100.0,
        0.0,
        100.0,
    ]


def test_snapshot_of_answers() -> None:
    """A snapshot counts what is probed now, and says what is not."""

    def instance(status: str, **values: Any) -> ebpf_pb2.Instance:
        return ebpf_pb2.Instance(pid=1, status=status, **values)

    session = debug_pb2.DebugSession(
        session_id="S1",
        service_name="web",
        function_name="f",
        status="active",
        started_at=convert.timestamp(T_NS),
        expires_at=convert.timestamp(T_NS + 60_000_000_000),
        ledger=convert.ledger_to(Ledger(entered=2, returned=2, emitted=2, stored=2)),
        collectors=[
            debug_pb2.Collector(
                agent_id="a",
                status="active",
                instances=[instance("attached"), instance("exited"), instance("skipped", reason="no such function")],
            ),
            debug_pb2.Collector(
                agent_id="b",
                status="active",
                instances=[
                    instance("attached", method="entry_only", reason="it has data in its code"),
                    instance("skipped", reason="no such function"),
                ],
            ),
            debug_pb2.Collector(agent_id="c", status="failed", reason="no room"),
        ],
    )
    results = debug_pb2.GetDebugResultsResponse(statistics=debug_pb2.DebugStatistics(total_calls=2, calls_per_second=0.5))
    assert snapshot_of(session, results, now_ns=T_NS + 4_000_000_000) == Snapshot(
        session_id="S1",
        service="web",
        function="f",
        status="active",
        left_s=56.0,
        lasted_s=4.0,
        instances=2,
        hosts=2,
        notes=(
            "c: no room",
            "2 instances skipped: no such function",
            "1 instance seen at entry only: it has data in its code",
        ),
        calls=2,
        calls_per_second=0.5,
        ledger=Ledger(entered=2, returned=2, emitted=2, stored=2),
    )


def test_a_narrow_terminal_gets_the_same_in_more_lines() -> None:
    """Nothing is cut off: the maximum and the losses are at the end of their lines."""
    lines = plain(picture(ENDED, width=50)).splitlines()
    assert max(map(len, lines)) <= 50
    text = " ".join(" ".join(lines).split())
    assert "p99 3.40 ms max 41.0 ms" in text
    assert "30 beyond the rate limit, the counters do not balance" in text
    assert [line for line in lines if line.startswith("latency")] == ["latency 104 µs ▁▄█▁      ▁         ▁ 41.0 ms"]


def test_names_are_cut_where_the_picture_must_stay_small() -> None:
    """A name of a thousand characters leaves room for what the picture is about."""
    lines = plain(picture(replace(RUNNING, service="s" * 1000, function="f" * 1000), width=60, cut_names=True)).splitlines()
    assert (lines[0], lines[1]) == (f"{'s' * 19}…  {'f' * 37}…", "active, 3 s left      2 instances on 1 host")


def test_a_process_is_counted_once_though_its_agent_was_restarted() -> None:
    """Each life of an agent has a collector of its own; the process in both is one instance."""
    instance = ebpf_pb2.Instance(pid=7, start_time_ns=5, status="detached")
    collectors = [debug_pb2.Collector(collector_id=name, agent_id="a", instances=[instance]) for name in ("c1", "c2")]
    session = debug_pb2.DebugSession(session_id="S1", status="expired", collectors=collectors)
    snapshot = snapshot_of(session, debug_pb2.GetDebugResultsResponse(), now_ns=T_NS)
    assert (snapshot.instances, snapshot.hosts) == (1, 1)
