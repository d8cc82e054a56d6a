"""The bounded memory of a collector's events."""

import numpy as np

from coral.agent.window import Window
from coral.events.record import EVENT


def events(first: int, count: int, *, time_ns: int = 0) -> np.ndarray:
    """Events with consecutive sequences, a nanosecond apart."""
    made = np.zeros(count, EVENT)
    made["sequence"] = np.arange(first, first + count)
    made["timestamp_ns"] = np.arange(time_ns, time_ns + count)
    return made


def filled() -> Window:
    """Sequences 1 to 10 in two parts."""
    window = Window()
    window.append(events(1, 4))
    window.append(events(5, 6, time_ns=4))
    return window


def test_reads_go_on_after_a_sequence() -> None:
    """A reader gets what comes after its position, across parts, up to its limit."""
    window = filled()
    assert window.after(0, 100)["sequence"].tolist() == list(range(1, 11))
    assert window.after(3, 3)["sequence"].tolist() == [4, 5, 6]
    assert window.after(10, 100)["sequence"].tolist() == []


def test_shrinking_drops_the_oldest() -> None:
    """What is kept are the newest events, also when that cuts a part in two; the last sequence stays."""
    window = filled()
    window.shrink(5)
    assert window.kept == 5
    assert window.after(0, 100)["sequence"].tolist() == [6, 7, 8, 9, 10]
    window.shrink(0)
    assert (window.kept, window.last_sequence, window.after(0, 9).tolist()) == (0, 10, [])


def test_a_time_range_is_half_open_and_ordered() -> None:
    """The start is inclusive, the end exclusive; equal times are ordered by sequence, later sequences are left out."""
    window = Window()
    late = events(1, 3, time_ns=5)
    late["timestamp_ns"] = [7, 5, 5]
    window.append(late)
    window.append(events(4, 2, time_ns=6))
    assert window.between(5, 7, 5)["sequence"].tolist() == [2, 3, 4]
    assert window.between(5, 8, 4)["sequence"].tolist() == [2, 3, 4, 1]
