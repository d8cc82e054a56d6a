"""Seconds of the fault matrix, and what judges it: a checker that would let everything pass proves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from faults.checker import COUNTERS, Leaves, Truth, footprint_faults, ledger_lines, session_faults, truth_faults
from faults.footprint import Footprint
from faults.growth import Sample, growth_faults
from faults.matrix import chosen_cases
from faults.run import play, warm
from faults.stack import FaultStack, fault_stack

_PLAYED = ("kill -9 colony", "SIGSTOP agent, moments", "kill -9 target")


@pytest.fixture(scope="module")
def stack() -> Iterator[FaultStack]:
    """A colony and an agent for the cases that are played here."""
    with fault_stack() as running:
        yield running


@pytest.mark.kernel
def test_a_slice_of_the_matrix(stack: FaultStack) -> None:
    """The colony's death, an agent that stands still and the programs' own death leave every invariant as it was."""
    before = warm(stack)
    verdicts = [play(stack, case, seed=5, before=before) for case in chosen_cases(_PLAYED)]
    assert [verdict.case for verdict in verdicts] == list(_PLAYED)
    assert [fault for verdict in verdicts for fault in verdict.faults] == []
    assert all(verdict.rates for verdict in verdicts if verdict.case != "kill -9 target")


def test_every_case_has_a_sentence() -> None:
    """`--list` says of each what happens in it."""
    cases = chosen_cases()
    assert [case.name for case in cases if not (case.run.__doc__ or "").strip()] == []
    assert len(cases) >= 30


def ledger(**counters: int) -> dict[str, Any]:
    """A ledger of 100 calls that were all stored, but for ``counters``."""
    whole = dict.fromkeys(COUNTERS, 0) | {"entered": 100, "returned": 100, "emitted": 100, "stored": 100}
    return {**whole, **counters, "unknown_intervals": [], "balanced": True}


def document(**counters: int) -> dict[str, Any]:
    """A session with one collector of such a ledger."""
    collector = {"collector_id": "c", "status": "detached", "ledger": ledger(**counters), "instances": []}
    times = {"started_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:01:00Z"}
    return {"status": "detached", **times, "ledger": ledger(**counters), "collectors": [collector]}


def rows(**changes: int) -> list[dict[str, Any]]:
    """What the table has of that collector."""
    return [{"collector_id": "c", "stored": 100, "distinct_sequences": 100, "first": 1, "last": 100, **changes}]


TRUTH = Truth(calls=100, returned=100, rate=4000)


def test_a_session_without_faults() -> None:
    """Where every call is stored the checker finds nothing."""
    assert session_faults(document(), rows(), Leaves.EXACT) == []
    assert truth_faults(document(), TRUTH, Leaves.EXACT) == []


@pytest.mark.parametrize("name", [name for name in COUNTERS if name != "orphan_returns"])
def test_each_counter_is_judged(name: str) -> None:
    """A counter that is one off breaks a line, whichever it is."""
    whole = ledger()
    assert ledger_lines({**whole, name: whole[name] + 1}) != []


@pytest.mark.parametrize(
    ("found", "changes"),
    [
        ("stored twice", {"distinct_sequences": 99}),
        ("the table has", {"stored": 99, "distinct_sequences": 99}),
        ("sequences are missing", {"last": 101}),
        ("a sequence is 0", {"first": 0}),
    ],
)
def test_rows_are_judged(found: str, changes: dict[str, int]) -> None:
    """Events that are there twice, not there, or have sequences that nobody gave are found in the table."""
    assert any(found in fault for fault in session_faults(document(), rows(**changes), Leaves.EXACT))


def test_the_programs_word_counts() -> None:
    """A call more or less than the program made is found, and in an unknown interval only so many as it can hide."""
    assert truth_faults(document(), replace(TRUTH, calls=101, returned=101), Leaves.EXACT) != []
    unknown = document()
    unknown["ledger"]["unknown_intervals"] = [{"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:00:01Z", "cause": "gone"}]
    assert truth_faults(unknown, Truth(calls=4100, returned=4100, rate=4000), Leaves.UNKNOWN) == []
    assert truth_faults(unknown, Truth(calls=20_000, returned=20_000, rate=4000), Leaves.UNKNOWN) != []


def test_loss_is_no_exactness() -> None:
    """A balanced ledger with lost calls passes where loss is allowed, and not where every call has to be stored."""
    lost = {"emitted": 90, "stored": 90, "ring_lost": 10}
    fewer = rows(stored=90, distinct_sequences=90, last=90)
    assert session_faults(document(**lost), fewer, Leaves.LOSS) == []
    assert session_faults(document(**lost), fewer, Leaves.EXACT) == ["lost: {'ring_lost': 10}"]


REST = Footprint(pid=1, memory_kib=100 << 10, descriptors=20, threads=20, processes=1, links=0, tasks=10)


def test_what_is_left_is_found() -> None:
    """A link, and descriptors, threads and tasks beyond what pools take, are faults."""
    assert footprint_faults("agent", REST, REST) == []
    left = replace(REST, links=1, descriptors=40, threads=40, tasks=40)
    assert len(footprint_faults("agent", REST, left)) == 4


def test_growth_is_told_from_noise() -> None:
    """A megabyte a minute over an hour is growth; ups and downs of ten, and one outlier, are none."""
    steady = [Sample(at_s=60 * n, taken=replace(REST, memory_kib=(100 + n * 7 % 10) << 10)) for n in range(60)]
    steady[50] = replace(steady[50], taken=replace(REST, memory_kib=900 << 10))
    assert growth_faults("colony", steady) == []
    growing = [Sample(at_s=60 * n, taken=replace(REST, memory_kib=(100 + 2 * n) << 10)) for n in range(60)]
    assert len(growth_faults("colony", growing)) == 1
    leaking = [Sample(at_s=60 * n, taken=replace(REST, tasks=10 + n)) for n in range(60)]
    assert [fault.split(" grew")[0] for fault in growth_faults("colony", leaking)] == ["colony: tasks"]
