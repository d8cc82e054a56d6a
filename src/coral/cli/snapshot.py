"""What the picture of a session shows, as one value."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

from coral.cli.documents import completed_calls
from coral.model.ledger import Ledger
from coral.wire._generated.colony.v1 import debug_pb2
from coral.wire._generated.mesh.v1 import ebpf_pb2
from coral.wire.convert import duration_ns, ledger_from, timestamp_ns

_RUNNING = ("pending", "active")
_RATE_WINDOW_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One of the slowest calls. Its time is when it returned, wall clock in ns."""

    duration_ns: int
    timestamp_ns: int
    pid: int
    tid: int
    agent_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """So many calls took from ``lower_ns`` up to, but not including, ``upper_ns``."""

    lower_ns: int
    upper_ns: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A session at one moment.

    Attributes:
        session_id: Which.
        service: Whose function.
        function: As it was asked for.
        status: Where it stands.
        reason: Why, as a sentence; empty when the status says it all.
        left_s: Seconds until its deadline; None once it has ended.
        lasted_s: Seconds from its acceptance to its end, or until now.
        instances: Processes that are, or were to the end, probed.
        hosts: On how many hosts.
        notes: What a person should know of instances that are not fully probed.
        calls: That completed.
        calls_per_second: Lately; over the whole time once it has ended.
        p50_ns: Of the reported calls, as the others.
        p95_ns: Likewise.
        p99_ns: Likewise.
        min_ns: Likewise.
        max_ns: Likewise.
        buckets: How long the reported calls took, by duration.
        slowest: The slowest first.
        ledger: Of all calls.
        balanced: Whether it balances; None while that cannot be said.
    """

    session_id: str
    service: str
    function: str
    status: str
    reason: str = ""
    left_s: float | None = None
    lasted_s: float = 0.0
    instances: int = 0
    hosts: int = 0
    notes: tuple[str, ...] = ()
    calls: int = 0
    calls_per_second: float = 0.0
    p50_ns: int = 0
    p95_ns: int = 0
    p99_ns: int = 0
    min_ns: int = 0
    max_ns: int = 0
    buckets: tuple[Bucket, ...] = ()
    slowest: tuple[Call, ...] = ()
    ledger: Ledger = Ledger()
    balanced: bool | None = None


def has_ended(session: debug_pb2.DebugSession) -> bool:
    """Whether nothing will change the session any more."""
    return session.status not in _RUNNING


def is_settled(session: debug_pb2.DebugSession) -> bool:
    """Whether it has ended and its final ledger has arrived, or never will."""
    ledger = session.ledger
    return has_ended(session) and (ledger.HasField("balanced") or bool(ledger.unknown_intervals) or not session.collectors)


def has_lost_calls(ledger: ebpf_pb2.Ledger) -> bool:
    """Whether calls were lost that were meant to be reported."""
    return ledger_from(ledger, final=True).lost


def snapshot_of(
    session: debug_pb2.DebugSession,
    results: debug_pb2.GetDebugResultsResponse,
    *,
    now_ns: int,
    left_s: float | None = None,
    calls_per_second: float | None = None,
) -> Snapshot:
    """The snapshot that two answers of the colony make.

    Args:
        session: The session.
        results: Its results, with the histogram if that is to be shown.
        now_ns: Wall clock.
        left_s: Seconds to its deadline as the caller's own clock has them; None to compare wall clocks.
        calls_per_second: The rate to show; None for that over the whole time.
    """
    ended = has_ended(session)
    statistics = results.statistics
    started_ns = timestamp_ns(session.started_at)
    end_ns = timestamp_ns(session.ended_at) if session.HasField("ended_at") else now_ns
    if left_s is None:
        left_s = (timestamp_ns(session.expires_at) - now_ns) / 1e9
    # An agent that was restarted has two collectors, and the same process in both.
    probed = {
        (collector.agent_id, instance.pid, instance.start_time_ns)
        for collector in session.collectors
        for instance in collector.instances
        if instance.status == "attached" or (ended and instance.status in ("detached", "exited"))
    }
    hosts = {agent_id for agent_id, _, _ in probed}
    plain = session.reason_code in ("", "deadline", "user")
    return Snapshot(
        session_id=session.session_id,
        service=session.service_name,
        function=session.function_name,
        status=session.status,
        reason="" if plain and session.status in ("expired", "detached") else session.reason or session.reason_code,
        left_s=None if ended else max(0.0, left_s),
        lasted_s=max(0, end_ns - started_ns) / 1e9,
        instances=len(probed),
        hosts=len(hosts),
        notes=tuple(_notes(session)),
        calls=completed_calls(session.ledger),
        calls_per_second=statistics.calls_per_second if calls_per_second is None else calls_per_second,
        p50_ns=duration_ns(statistics.duration_p50),
        p95_ns=duration_ns(statistics.duration_p95),
        p99_ns=duration_ns(statistics.duration_p99),
        min_ns=duration_ns(statistics.duration_min),
        max_ns=duration_ns(statistics.duration_max),
        buckets=tuple(
            Bucket(lower_ns=lower, upper_ns=upper, count=count)
            for lower, upper, count in zip(
                results.histogram.lower_ns, results.histogram.upper_ns, results.histogram.count, strict=True
            )
        ),
        slowest=tuple(_call(outlier, several=len(hosts) > 1) for outlier in results.slow_outliers),
        ledger=ledger_from(session.ledger, final=ended),
        balanced=session.ledger.balanced if session.ledger.HasField("balanced") else None,
    )


def _call(outlier: debug_pb2.SlowOutlier, *, several: bool) -> Call:
    return Call(
        duration_ns=duration_ns(outlier.duration),
        timestamp_ns=timestamp_ns(outlier.timestamp),
        pid=outlier.event.pid,
        tid=outlier.event.tid,
        agent_id=outlier.event.agent_id if several else "",
    )


def _notes(session: debug_pb2.DebugSession) -> Iterator[str]:
    """Collectors and instances that need a word, equal ones counted together."""
    for collector in session.collectors:
        if collector.reason and collector.status in ("failed", "lost"):
            yield f"{collector.agent_id}: {collector.reason}"
    found: Counter[str] = Counter()
    for collector in session.collectors:
        for instance in collector.instances:
            if instance.status in ("failed", "skipped"):
                found[f"{instance.status}: {instance.reason}" if instance.reason else instance.status] += 1
            elif instance.method == "entry_only":
                found[f"seen at entry only: {instance.reason}" if instance.reason else "seen at entry only"] += 1
    for text, count in found.items():
        yield f"{count:,} {'instance' if count == 1 else 'instances'} {text}"


class Rate:
    """Calls per second over the last seconds, from totals seen now and then."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, now_s: float, calls: int) -> float | None:
        """Notes a total.

        Args:
            now_s: A clock that only goes forward.
            calls: The total at that time.

        Returns:
            The rate; None until two totals are known.
        """
        self._seen.append((now_s, calls))
        while len(self._seen) > 2 and self._seen[1][0] <= now_s - _RATE_WINDOW_S:
            self._seen.popleft()
        first_s, first = self._seen[0]
        return (calls - first) / (now_s - first_s) if now_s > first_s else None
