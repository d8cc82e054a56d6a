"""The independent checker: recomputes what must hold from documents, tables and the programs' own counters.

It knows the promises (what a ledger, a session, an event are) and none of the code that keeps them: nothing of ``coral`` is
imported here. Each function returns what is wrong as sentences; an empty list is a pass.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from support.text import changed_text

from faults.footprint import Footprint
from faults.links import probed_paths

COUNTERS = (
    *("entered", "returned", "unreturned", "open", "no_return", "too_deep", "unseen"),
    *("emitted", "filtered", "sampled_out", "rate_limited", "ring_lost", "orphan_returns"),
    *("stored", "queue_dropped", "in_transit"),
)
_ENDED = ("expired", "detached", "failed", "lost")
_INSTANCE_ENDED = ("detached", "exited", "skipped", "failed")
_MEMORY_KIB = 256 << 10
"""How much more a daemon may have after a case than when it was new: its database keeps hundreds of thousands of events in
memory by then. Growth over many cases is judged by the soak."""
_DESCRIPTORS = 8
_THREADS = 8
_TASKS = 4


class Leaves(enum.Enum):
    """What a fault may leave in the ledger of a session that it hit."""

    EXACT = "every call stored"
    LOSS = "loss counted to the last call"
    UNKNOWN = "a stated interval unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What a program counted itself while it was probed.

    Attributes:
        calls: Counted before each call.
        returned: Counted after each.
        rate: Calls a second, for what an unknown interval may hide.
        during: Whether all of them were made while the probe was on, so that they have to be equal.
        unsure: How many calls may have been counted and not made, because the program was killed in between.
    """

    calls: int
    returned: int
    rate: int
    during: bool = True
    unsure: int = 0


def ledger_lines(ledger: Mapping[str, Any], *, final: bool = True) -> list[str]:
    """The lines of a ledger that do not hold.

    Args:
        ledger: As in a session document.
        final: Whether nothing may be under way any more.
    """
    n = {name: ledger[name] for name in COUNTERS}
    faults = [f"{name} is {value!r}" for name, value in n.items() if not isinstance(value, int) or value < 0]
    if faults:
        return faults
    lines = [
        ("entered = returned + unreturned + unseen", n["entered"], n["returned"] + n["unreturned"] + n["unseen"]),
        ("unreturned = open + no_return + too_deep", n["unreturned"], n["open"] + n["no_return"] + n["too_deep"]),
        (
            "returned + unseen = emitted + filtered + sampled_out + rate_limited + ring_lost",
            n["returned"] + n["unseen"],
            n["emitted"] + n["filtered"] + n["sampled_out"] + n["rate_limited"] + n["ring_lost"],
        ),
        ("emitted = stored + queue_dropped + in_transit", n["emitted"], n["stored"] + n["queue_dropped"] + n["in_transit"]),
    ]
    if final:
        lines.append(("in_transit = 0", n["in_transit"], 0))
    return [f"{line}: {left} is not {right}" for line, left, right in lines if left != right]


def session_faults(document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], leaves: Leaves) -> list[str]:
    """What is wrong with a session that has ended.

    Args:
        document: Of the session.
        rows: What ``identities`` asks the tables for.
        leaves: What the fault may have left.
    """
    ledger, collectors = document["ledger"], document["collectors"]
    faults = []
    if document["status"] not in _ENDED:
        faults.append(f"status {document['status']} is no end")
    if document["ended_at"] is None or _time(document["ended_at"]) < _time(document["started_at"]):
        faults.append(f"it ended at {document['ended_at']}, and started at {document['started_at']}")
    unknown = ledger["unknown_intervals"]
    if leaves is not Leaves.UNKNOWN and unknown:
        faults.append(f"unknown intervals: {unknown}")
    if leaves is Leaves.UNKNOWN and not unknown:
        faults.append("no unknown interval, although an agent was lost")
    faults += _intervals(document)
    if unknown:
        if ledger["balanced"] is not None:
            faults.append(f"balanced is {ledger['balanced']} with unknown intervals")
    else:
        faults += ledger_lines(ledger)
        if ledger["balanced"] is not True:
            faults.append(f"balanced is {ledger['balanced']}")
    if leaves is Leaves.EXACT:
        lost = {name: ledger[name] for name in ("ring_lost", "queue_dropped", "rate_limited", "too_deep") if ledger[name]}
        faults += [f"lost: {lost}"] if lost else []
    for name in COUNTERS:
        if ledger[name] != sum(collector["ledger"][name] for collector in collectors):
            faults.append(f"{name} is not the sum over the collectors")
    by_id = {row["collector_id"]: row for row in rows}
    if by_id.keys() - {collector["collector_id"] for collector in collectors}:
        faults.append(f"events of collectors that are none of the session: {by_id.keys()}")
    for collector in collectors:
        faults += [f"collector {collector['collector_id']}: {fault}" for fault in _collector(collector, by_id)]
    return faults


def identities(session_id: str) -> str:
    """The statement whose rows say, by collector, how many events are stored and which sequences they have."""
    return (
        "SELECT collector_id, count(*) AS stored, count(DISTINCT sequence) AS distinct_sequences, "
        "min(sequence) AS first, max(sequence) AS last "
        f"FROM uprobe_events WHERE session_id = '{session_id}' GROUP BY collector_id"
    )


def truth_faults(document: Mapping[str, Any], truth: Truth, leaves: Leaves) -> list[str]:
    """Where a session's ledger and the program's own counters disagree."""
    ledger = document["ledger"]
    entered, stored = ledger["entered"], ledger["stored"]
    if leaves is Leaves.UNKNOWN:
        faults = [f"entered {entered} of {truth.calls} calls"] if entered > truth.calls else []
        unknown_s = sum(_time(one["to"]) - _time(one["from"]) for one in ledger["unknown_intervals"])
        missing = truth.returned - stored - ledger["queue_dropped"] - ledger["ring_lost"]
        # The agent's clock, the reading of the counters and the moment of the attach are not one moment.
        if missing > (unknown_s + 1.5) * truth.rate:
            faults.append(f"{missing} calls are missing, and only {unknown_s:.2f} s are said to be unknown")
        return faults
    if not truth.during:
        return [f"entered {entered} of {truth.calls} calls"] if entered > truth.calls else []
    faults = []
    if not truth.calls - truth.unsure <= entered <= truth.calls:
        faults.append(f"entered is {entered}, the program made {truth.calls} calls")
    if ledger["returned"] + ledger["unseen"] > truth.calls or ledger["returned"] + ledger["unseen"] < truth.returned:
        faults.append(f"returned is {ledger['returned']}, of the program's calls {truth.returned} came back")
    if leaves is Leaves.EXACT and not truth.returned <= stored <= truth.calls:
        faults.append(f"stored is {stored}, of the program's calls {truth.returned} came back")
    return faults


def text_faults(pids: Iterable[int]) -> list[str]:
    """Where the code of processes is not what their files have."""
    faults = []
    for pid in pids:
        try:
            changed = changed_text(pid)
        except (FileNotFoundError, ProcessLookupError, StopIteration):  # it ended, and took its memory with it
            continue
        faults += [f"pid {pid} has {len(changed)} changed bytes: {changed[:3]}"] if changed else []
    return faults


def link_faults(programs: Iterable[str]) -> list[str]:
    """Which files of programs the kernel still has probes for."""
    held = probed_paths()
    return [f"{held.count(program)} links are left on {program}" for program in programs if program in held]


def footprint_faults(name: str, before: Footprint, after: Footprint) -> list[str]:
    """What a daemon has kept of a case.

    Args:
        name: Of the daemon.
        before: At rest, warm, before.
        after: At rest after it; of another life perhaps.
    """
    bounds = (
        ("links", before.links, after.links, 0),
        ("descriptors", before.descriptors, after.descriptors, _DESCRIPTORS),
        ("threads", before.threads, after.threads, _THREADS),
        ("tasks", before.tasks, after.tasks, _TASKS),
        ("KiB of memory", before.memory_kib, after.memory_kib, _MEMORY_KIB),
    )
    return [f"{name}: {then} {what} before, {now} after" for what, then, now, more in bounds if now > then + more]


def _collector(collector: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    ledger, faults = collector["ledger"], []
    if collector["status"] not in _ENDED:
        faults.append(f"status {collector['status']} is no end")
    running = [one["pid"] for one in collector["instances"] if one["status"] not in _INSTANCE_ENDED]
    if running and not ledger["unknown_intervals"]:
        faults.append(f"instances {running} are said to be attached still")
    if not ledger["unknown_intervals"]:
        faults += ledger_lines(ledger)
    row = rows.get(collector["collector_id"])
    stored, distinct = (row["stored"], row["distinct_sequences"]) if row else (0, 0)
    first, last = (row["first"], row["last"]) if row else (1, 0)
    if distinct != stored:
        faults.append(f"{stored} rows have {distinct} sequences: events are stored twice")
    if stored != ledger["stored"]:
        faults.append(f"the ledger says {ledger['stored']} stored, the table has {stored}")
    if first < 1:
        faults.append(f"a sequence is {first}")
    if last - stored > ledger["queue_dropped"]:
        faults.append(f"{last - stored} sequences are missing, {ledger['queue_dropped']} are ledgered")
    if not ledger["unknown_intervals"] and last > ledger["emitted"]:
        faults.append(f"the last sequence is {last}, of {ledger['emitted']} emitted")
    return faults


def _intervals(document: Mapping[str, Any]) -> list[str]:
    faults = []
    for one in document["ledger"]["unknown_intervals"]:
        if not one["cause"]:
            faults.append("an unknown interval has no cause")
        if _time(one["from"]) > _time(one["to"]):
            faults.append(f"an unknown interval ends before it begins: {one}")
    return faults


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
