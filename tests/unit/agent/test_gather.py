"""When a stream of events sends."""

import pytest

from coral.agent.gather import BATCH_EVENTS, FIRST_EVENTS, FULL_EVENTS, GATHER_S, MOST_GATHER_S, SLOW_S, Gather


def test_the_first_event_after_a_quiet_time_waits_for_nothing() -> None:
    """Neither at the beginning, nor when the last batch is longer ago than a steady stream waits."""
    gather = Gather()
    assert gather.wait_s(now_s=100.0, waiting=1) == 0
    gather.sent(now_s=100.0, events=1)
    assert gather.wait_s(now_s=100.0 + GATHER_S, waiting=1) == 0


def test_events_of_a_steady_stream_wait_for_the_next_batch() -> None:
    """As long as is left since the last one, unless they already fill a batch."""
    gather = Gather()
    gather.sent(now_s=100.0, events=1)
    assert gather.wait_s(now_s=100.0 + GATHER_S / 4, waiting=FULL_EVENTS - 1) == pytest.approx(0.75 * GATHER_S)
    assert gather.wait_s(now_s=100.0, waiting=FULL_EVENTS) == 0


def test_batches_are_as_large_as_the_link_bears() -> None:
    """A stream begins with small ones, doubles them while they are taken at once, and halves them on a link that is slow."""
    gather, sizes = Gather(), []
    for takes_s in [0.0] * 8 + [2 * SLOW_S] * 9:
        sizes.append(gather.most)
        gather.sent(now_s=100.0, events=1)
        gather.taken(now_s=100.0 + takes_s)
    assert sizes[:7] == [FIRST_EVENTS << step for step in range(7)]
    assert (sizes[8], sizes[9], gather.most) == (BATCH_EVENTS, BATCH_EVENTS // 2, FIRST_EVENTS)


def test_a_mere_snapshot_delays_nothing() -> None:
    """Counters that were sent without events are no reason to wait."""
    gather = Gather()
    gather.sent(now_s=100.0, events=0)
    assert gather.wait_s(now_s=100.0, waiting=1) == 0


def test_a_reader_of_many_agents_asks_for_fewer_batches() -> None:
    """What the reader asks for is kept within bounds: never quicker than by itself, never slower than two seconds."""
    for asked_s, gathered_s in ((0.0, GATHER_S), (0.01, GATHER_S), (0.5, 0.5), (4e6, MOST_GATHER_S)):
        gather = Gather(gather_s=asked_s)
        gather.sent(now_s=100.0, events=1)
        assert gather.wait_s(now_s=100.0, waiting=1) == pytest.approx(gathered_s)
