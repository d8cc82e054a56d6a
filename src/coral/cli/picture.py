"""The picture of a session: text lines with styles, the same live, at the end, and off a terminal. Pure.

checkout  main.ProcessPayment      active, 3 s left      2 instances on 1 host
calls   13,204   1,320/s     p50 212 µs   p95 1.9 ms   p99 3.4 ms   max 41.0 ms
latency 104 µs ▁▃▇█▆▂▁▁  ▁▂▁          ▁ 41.0 ms
                       ╵1 ms    ╵10 ms
slowest 41.0 ms  12:01:07.113  pid 4411 tid 4415
ledger  13,207 entered = 13,204 returned + 3 still running; 13,204 stored, nothing lost
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from coral.cli.cells import cell_width, cut
from coral.cli.folding import Line, Span, fold
from coral.cli.snapshot import Bucket, Snapshot
from coral.cli.times import local_clock
from coral.model.ledger import Ledger
from coral.model.text import format_duration, printable

_BARS = "▁▂▃▄▅▆▇█"
_TICK = "╵"
_MAX_COLUMNS = 44
_PER_DECADE = (16, 12, 8, 6, 4, 3, 2, 1)
_SHOWN_CALLS = 5
_SHOWN_NOTES = 3
_LABEL = 8
_NARROWEST = 20
"""Narrower terminals are left to break lines as they like."""

PLAIN, STRONG, FAINT, GOOD, WARNING, BAD, BAR = "", "bold", "dim", "green", "yellow", "bold red", "cyan"


def picture(snapshot: Snapshot, *, width: int | None = None, cut_names: bool = False) -> list[Line]:
    """The lines of a session's picture.

    Args:
        snapshot: What to show.
        width: Columns there are; None for as many as it takes.
        cut_names: Whether names too long for a line are cut rather than broken.
    """
    lines = [
        *_header(snapshot, width, cut_names=cut_names),
        *([_line("reason", Span(printable(snapshot.reason), WARNING))] if snapshot.reason else []),
        _calls(snapshot),
        *_latency(snapshot, width),
        *_slowest(snapshot),
        *_ledger(snapshot),
        *_notes(snapshot.notes),
        _line("session", Span(printable(snapshot.session_id), FAINT)),
    ]
    if width is None:
        return lines
    return [piece for line in lines for piece in fold(line, width=max(width, _NARROWEST), indent=_LABEL)]


def plain(lines: Sequence[Line]) -> str:
    """The lines as text without styles."""
    return "".join("".join(span.text for span in line).rstrip() + "\n" for line in lines)


def summary(snapshot: Snapshot) -> str:
    """One line of progress, for logs and pipes."""
    left = f"{math.ceil(snapshot.left_s)} s left" if snapshot.left_s is not None else snapshot.status
    latency = (
        f", p50 {format_duration(snapshot.p50_ns)}, p99 {format_duration(snapshot.p99_ns)}, "
        f"max {format_duration(snapshot.max_ns)}"
        if snapshot.max_ns
        else ""
    )
    lost = "".join(f", {text}" for text in _losses(snapshot.ledger))
    return f"{left}: {_count(snapshot.calls, 'call')}, {_per_second(snapshot)}{latency}{lost}"


def ledger_sentence(ledger: Ledger, *, balanced: bool | None) -> tuple[str, str]:
    """What became of the calls: a sentence of the equation, and one of what was lost; the second empty if nothing was."""
    parts = [f"{ledger.returned:,} returned"]
    for count, text in (
        (ledger.open, "still running"),
        (ledger.no_return, "that never returned"),
        (ledger.too_deep, "too deep to follow"),
        (ledger.unseen, "seen at entry only"),
    ):
        if count:
            parts.append(f"{count:,} {text}")
    kept = [f"{ledger.stored:,} stored"]
    for count, text in (
        (ledger.filtered, "filtered"),
        (ledger.sampled_out, "sampled out"),
        (ledger.in_transit, "that never arrived" if ledger.final else "on their way"),
    ):
        if count:
            kept.append(f"{count:,} {text}")
    lost = _losses(ledger)
    if balanced is False:
        lost.append("the counters do not balance")
    equation = f"{ledger.entered:,} entered = {' + '.join(parts)}; {', '.join(kept)}"
    return equation, ", ".join(lost)


def _header(snapshot: Snapshot, width: int | None, *, cut_names: bool) -> Iterator[Line]:
    ended = snapshot.left_s is None
    state = (
        f"{snapshot.status} after {format_duration(snapshot.lasted_s * 1e9)}"
        if snapshot.left_s is None
        else f"{snapshot.status}, {math.ceil(snapshot.left_s)} s left"
    )
    bad = snapshot.status in ("failed", "lost")
    style = BAD if bad else PLAIN if ended else GOOD if snapshot.status == "active" else WARNING
    where = f"{_count(snapshot.instances, 'instance')} on {_count(snapshot.hosts, 'host')}"
    service, function = printable(snapshot.service), printable(snapshot.function)
    if cut_names and width is not None and cell_width(service) + cell_width(function) + 2 > width:
        service = cut(service, max(width // 3, width - 2 - cell_width(function)))
        function = cut(function, width - 2 - cell_width(service))
    name = (Span(service, STRONG), Span("  "), Span(function, STRONG))
    rest = (Span(state, style), Span("      "), Span(where))
    if width is not None and sum(cell_width(span.text) for span in (*name, *rest)) + 6 > width:
        yield name
        yield rest
    else:
        yield (*name, Span("      "), *rest)


def _calls(snapshot: Snapshot) -> Line:
    spans = [Span(f"{snapshot.calls:,}", STRONG), Span(f"   {_per_second(snapshot)}")]
    if snapshot.max_ns:
        for name, value in (
            ("p50", snapshot.p50_ns),
            ("p95", snapshot.p95_ns),
            ("p99", snapshot.p99_ns),
            ("max", snapshot.max_ns),
        ):
            spans += [Span("     " if name == "p50" else "   "), Span(f"{name} ", FAINT), Span(format_duration(value))]
    return _line("calls", *spans)


def _per_second(snapshot: Snapshot) -> str:
    rate = snapshot.calls_per_second
    return f"{rate:,.0f}/s" if rate >= 10 or rate == 0 else f"{rate:.1f}/s"


def _latency(snapshot: Snapshot, width: int | None) -> Iterator[Line]:
    if not snapshot.buckets:
        return
    low = format_duration(snapshot.min_ns or snapshot.buckets[0].lower_ns)
    high = format_duration(snapshot.max_ns or snapshot.buckets[-1].upper_ns)
    room = _MAX_COLUMNS if width is None else min(_MAX_COLUMNS, width - _LABEL - len(low) - len(high) - 2)
    per_decade, first, counts = _columns(snapshot.buckets, room)
    if len(counts) > max(1, room):
        return
    most = max(counts)
    bars = "".join(_BARS[math.ceil(count * len(_BARS) / most) - 1] if count else " " for count in counts)
    yield _line("latency", Span(f"{low} ", FAINT), Span(bars, BAR), Span(f" {high}", FAINT))
    ticks = ""
    for column in range(1, len(counts)):
        if (first + column) % per_decade == 0 and len(ticks) < column:
            label = _decade((first + column) // per_decade)
            if label not in (low, high) and column + len(label) < len(counts) + len(high):
                ticks = ticks.ljust(column) + _TICK + label
    if ticks:
        yield _line("", Span(" " * (len(low) + 1) + ticks, FAINT))


def _columns(buckets: Sequence[Bucket], room: int) -> tuple[int, int, list[int]]:
    """Sums buckets into columns of equal width on a logarithmic scale; at most ``room`` of them if that is possible.

    Returns:
        Columns per decade; the index of the first (column i starts at 10 ** (i / per_decade) ns); their counts.
    """
    middles = [max(1.0, (bucket.lower_ns + bucket.upper_ns - 1) / 2) for bucket in buckets]

    def index(value: float, per_decade: int) -> int:
        return math.floor(math.log10(value) * per_decade + 1e-9)

    per_decade = next((n for n in _PER_DECADE if index(middles[-1], n) - index(middles[0], n) < room), _PER_DECADE[-1])
    first = index(middles[0], per_decade)
    counts = [0] * (index(middles[-1], per_decade) - first + 1)
    for middle, bucket in zip(middles, buckets, strict=True):
        counts[index(middle, per_decade) - first] += bucket.count
    return per_decade, first, counts


def _decade(exponent: int) -> str:
    """The duration of ``10 ** exponent`` ns, in whole units."""
    unit = min(exponent // 3, 3)
    return f"{10 ** (exponent - 3 * unit):,} {('ns', 'µs', 'ms', 's')[unit]}"


def _slowest(snapshot: Snapshot) -> Iterator[Line]:
    shown = snapshot.slowest[:_SHOWN_CALLS]
    durations = [format_duration(call.duration_ns) for call in shown]
    widest = max(map(len, durations), default=0)
    for row, (call, duration) in enumerate(zip(shown, durations, strict=True)):
        agent = f"  on {printable(call.agent_id)}" if call.agent_id else ""
        yield _line(
            "slowest" if row == 0 else "",
            Span(duration.rjust(widest), STRONG),
            Span(f"  {local_clock(call.timestamp_ns)}  pid {call.pid} tid {call.tid}{agent}"),
        )


def _ledger(snapshot: Snapshot) -> Iterator[Line]:
    equation, lost = ledger_sentence(snapshot.ledger, balanced=snapshot.balanced)
    unknown = snapshot.ledger.unknown_intervals
    end = Span(lost, BAD) if lost else Span("nothing else lost" if unknown else "nothing lost", PLAIN if unknown else GOOD)
    yield _line("ledger", Span(f"{equation}, "), end)
    for gap in unknown:
        until = local_clock(gap.to_ns) if gap.to_ns else "now"
        yield _line("", Span(f"unknown from {local_clock(gap.from_ns)} to {until}: {printable(gap.cause)}", BAD))
    if snapshot.ledger.orphan_returns:
        text = f"and {_count(snapshot.ledger.orphan_returns, 'return')} of calls that were not followed from their start"
        yield _line("", Span(text, FAINT))


def _losses(ledger: Ledger) -> list[str]:
    return [
        f"{count:,} {text}"
        for count, text in (
            (ledger.ring_lost, "lost: the kernel's ring was full"),
            (ledger.queue_dropped, "lost on the way to the database"),
            (ledger.rate_limited, "beyond the rate limit"),
        )
        if count
    ]


def _notes(notes: Sequence[str]) -> Iterator[Line]:
    for row, note in enumerate(notes[:_SHOWN_NOTES]):
        yield _line("note" if row == 0 else "", Span(printable(note), WARNING))
    if len(notes) > _SHOWN_NOTES:
        yield _line("", Span(f"and {len(notes) - _SHOWN_NOTES:,} more: see coral debug session get ID -o json", FAINT))


def _line(label: str, *spans: Span) -> Line:
    return (Span(label.ljust(_LABEL), FAINT), *spans)


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
