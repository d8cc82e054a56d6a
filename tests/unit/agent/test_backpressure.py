"""Whose calls are held back because their reader is slow."""

from coral.agent.backpressure import Backpressure


def test_a_slow_reader_holds_its_collector_back_until_it_has_caught_up() -> None:
    """From half of the memory on, down to an eighth of it; in between nothing changes, whichever way it came there."""
    pressure = Backpressure(room=800)
    assert pressure.look({3: 399}) == (frozenset(), frozenset())
    assert pressure.look({3: 400}) == ({3}, frozenset())
    assert pressure.look({3: 101}) == (frozenset(), frozenset())
    assert pressure.held == {3}
    assert pressure.look({3: 100}) == (frozenset(), {3})
    assert pressure.look({3: 399}) == (frozenset(), frozenset())


def test_only_those_are_held_back_that_take_more_than_their_share() -> None:
    """A collector whose reader keeps up is not held back for another's, however crowded the memory is."""
    pressure = Backpressure(room=800)
    assert pressure.look({1: 390, 2: 10}) == ({1}, frozenset())
    assert pressure.look({1: 390, 2: 200}) == ({2}, frozenset())
    assert pressure.look({1: 40, 2: 200}) == (frozenset(), {1})


def test_who_is_not_read_any_more_is_let_go() -> None:
    """A reader that hangs up leaves nobody held back."""
    pressure = Backpressure(room=800)
    pressure.look({1: 500})
    assert pressure.look({}) == (frozenset(), {1})
