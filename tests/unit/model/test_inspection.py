"""What a call is forecast to cost."""

from __future__ import annotations

import pytest

from coral.model.addresses import FileOffset, Vaddr
from coral.model.inspection import CostForecast, ExplainedSite, TrapCost, forecast
from coral.model.site import Site, SiteKind

COST = TrapCost(emulated_ns=700, stepped_ns=9000, pairing_ns=300)


def site(kind: SiteKind, *, emulated: bool) -> ExplainedSite:
    """A site of a kind."""
    return ExplainedSite(
        site=Site(offset=FileOffset(0x1000), kind=kind, reason="a test"),
        vaddr=Vaddr(0x1000),
        instruction="push rbp" if emulated else "ret",
        emulated=emulated,
    )


@pytest.mark.parametrize(
    ("sites", "expected"),
    [
        ([("entry", True), ("return", False), ("return", False)], (10_000, 10_000)),
        ([("entry", True), ("return", False), ("tail", True)], (1_700, 10_000)),
        ([("entry", True), ("entry", False), ("return", False)], (10_000, 18_300)),
        ([("entry", False)], (9_000, 9_000)),
    ],
)
def test_one_entry_and_one_exit(sites: list[tuple[str, bool]], expected: tuple[int, int]) -> None:
    """The cheapest entry with the cheapest exit, and the dearest with the dearest; an exit costs the pairing too."""
    explained = tuple(site(SiteKind(kind), emulated=emulated) for kind, emulated in sites)
    assert forecast(explained, COST) == CostForecast(lowest_ns=expected[0], highest_ns=expected[1])


def test_nothing_attached_costs_nothing_that_can_be_forecast() -> None:
    """Without sites there is no forecast, rather than one of 0."""
    assert forecast((), COST) is None
