"""Go programs that count their own calls while stacks move, goroutines change threads, and everything runs at full speed."""

from __future__ import annotations

import pytest
from support import build
from support.observe import (
    assert_durations,
    assert_ranked_durations,
    assert_stored_once,
    counted,
    every_call_stored,
    observe,
)
from support.stack import Stack
from support.target import running

pytestmark = pytest.mark.kernel


def test_stack_that_grows_on_entry(stack: Stack) -> None:
    """A call whose entry moves the stack is one call: 6 KiB frames on fresh goroutines are entered once each."""
    with running(build.go_program("truth"), "-scenario", "grow", "-calls", 250) as target:
        seen = observe(stack, target, "main.Grow")
    assert counted(seen.ledger) == every_call_stored(2000)
    assert min(event["duration_ns"] for event in seen.events) > 0


def test_recursion_with_growing_stacks(stack: Stack) -> None:
    """Recursion 300 deep on fresh goroutines, whose stack moves with frames open, is paired level by level."""
    with running(build.go_program("truth"), "-scenario", "recurse", "-goroutines", 4, "-calls", 4) as target:
        seen = observe(stack, target, "main.Recurse", events=False)
    assert seen.truth["wrong"] == 0
    assert seen.truth["calls"] == 16 * 301
    assert counted(seen.ledger) == every_call_stored(16 * 301)


def test_goroutines_that_change_threads(stack: Stack) -> None:
    """A goroutine that returns on another thread than it entered on is the same call."""
    with running(build.go_program("truth"), "-scenario", "migrate", "-goroutines", 16, "-calls", 150) as target:
        seen = observe(stack, target, "main.Migrate")
    assert seen.truth["wrong"] == 0
    assert counted(seen.ledger) == every_call_stored(2400)
    assert len({event["tid"] for event in seen.events}) > 1


def test_panics_and_goexit(stack: Stack) -> None:
    """A panic recovered in the own defer returns; one recovered by the caller, and Goexit, never do."""
    with running(build.go_program("truth"), "-scenario", "panic", "-goroutines", 4, "-calls", 200) as target:
        seen = observe(stack, target, "main.Risky", events=False)
    assert (seen.truth["calls"], seen.truth["returned"], seen.truth["left"]) == (800, 500, 200)
    ledger = seen.ledger
    assert (ledger["entered"], ledger["returned"], ledger["unreturned"], ledger["stored"]) == (800, 500, 300, 500)
    assert ledger["orphan_returns"] == 0


def test_full_speed(stack: Stack) -> None:
    """Eight goroutines with 60,000 calls each: no entry or return is missed, no event unaccounted for."""
    with running(build.go_program("truth"), "-scenario", "flood", "-goroutines", 8, "-calls", 60_000) as target:
        seen = observe(stack, target, "main.Work", events=False)
    assert seen.truth["wrong"] == 0
    ledger = seen.ledger
    assert (ledger["entered"], ledger["returned"], ledger["orphan_returns"]) == (480_000, 480_000, 0)
    assert ledger["stored"] + ledger["ring_lost"] + ledger["queue_dropped"] == 480_000
    assert_stored_once(stack, seen.document)


def test_durations_of_one_goroutine(stack: Stack) -> None:
    """Each duration lies between what the function and what its caller measured, although the goroutine sleeps."""
    with running(build.go_program("truth"), "-scenario", "slow", "-calls", 40) as target:
        seen = observe(stack, target, "main.Slow")
    assert counted(seen.ledger) == every_call_stored(40)
    assert_durations(seen.events, seen.truth["slow"])


def test_durations_of_many_goroutines(stack: Stack) -> None:
    """Likewise for eight goroutines at once, on whatever threads they are."""
    with running(build.go_program("truth"), "-scenario", "slow-concurrent", "-goroutines", 8, "-calls", 25) as target:
        seen = observe(stack, target, "main.Slow")
    assert counted(seen.ledger) == every_call_stored(200)
    assert_ranked_durations(seen.events, seen.truth["slow"])
