"""How many events a host's sessions may report."""

from __future__ import annotations

import pytest

from coral.agent.event_rate import EventRate, bounded
from coral.model.probe import ProbeFilter, ProbeSpec


@pytest.mark.parametrize(("asked", "allowed"), [(0, 1000), (500, 500), (1000, 1000), (5000, 1000)])
def test_a_probe_gets_what_it_asks_for_up_to_the_limit(asked: int, allowed: int) -> None:
    """Nothing else of it changes; who asks for no limit gets the host's."""
    spec = ProbeSpec(service_name="s", function_name="f", filter=ProbeFilter(min_duration_ns=5, max_events_per_second=asked))
    assert bounded(spec, events_per_s=1000) == ProbeSpec(
        service_name="s", function_name="f", filter=ProbeFilter(min_duration_ns=5, max_events_per_second=allowed)
    )


def test_a_host_without_a_limit_leaves_probes_as_they_are() -> None:
    """Not even the kernel counts then."""
    spec = ProbeSpec(service_name="s", function_name="f", filter=ProbeFilter(max_events_per_second=7))
    assert bounded(spec, events_per_s=0) is spec


def test_the_session_that_reports_the_most_is_named() -> None:
    """Only when all together are above the limit for a while, and then one at a time."""
    rate = EventRate(events_per_s=1000)
    assert rate.too_much({"a": 0, "b": 0}, now=100.0) == ""
    assert rate.too_much({"a": 400, "b": 5000}, now=100.5) == ""  # a burst
    assert rate.too_much({"a": 400, "b": 5100}, now=101.0) == ""  # that is over
    assert rate.too_much({"a": 1200, "b": 5400}, now=101.5) == ""
    assert rate.too_much({"a": 2000, "b": 5700}, now=102.0) == "a"
    assert rate.too_much({"b": 6300, "c": 100}, now=102.5) == ""
    assert rate.too_much({"b": 6900, "c": 200}, now=103.0) == "b"
    assert rate.too_much({}, now=103.5) == ""
