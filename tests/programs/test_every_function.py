"""A slice of the corpus: functions of real programs, checked against what objdump says of them. ``make corpus`` has all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from corpus import check
from corpus.listing import Listing, listing
from corpus.recipes import recipes
from support import elf_images

from coral.elf import names
from coral.elf.plan import plan_functions
from coral.elf.program import Program
from coral.elf.symbols import Function
from coral.model.site import FunctionPlan, Method

pytestmark = pytest.mark.programs

_RECIPES = {recipe.name: recipe for recipe in recipes()}
_LEAST_SHARE = 0.97


@pytest.mark.parametrize(
    ("name", "every", "wanted"),
    [
        ("real/nginx", 7, ("ngx_http_process_request",)),
        ("real/redis", 13, ("processCommand",)),
        ("real/postgres", 47, ("PortalRun", "pg_parse_query")),
        ("real/go", 97, ("main.main", "cmd/go/internal/load.(*Package).load")),
    ],
)
def test_every_site_is_an_instruction_and_every_exit_leaves(name: str, every: int, wanted: tuple[str, ...]) -> None:
    """No site is off objdump's boundaries, every exit is a return or a jump, no return is left out, few are refused."""
    path = _RECIPES[name].obtain()
    image, listed = elf_images.program(path), listing(path)
    chosen = check.functions(image)[every // 2 :: every]
    chosen += [names.find(image.symbols, each, name).functions[0] for each in wanted]
    outcomes = list(check.check(image, listed, chosen))
    assert [(outcome.name, outcome.faults) for outcome in outcomes if outcome.faults] == []
    assert [outcome.verdict for outcome in outcomes[-len(wanted) :]] == [Method.RET_SITES.value] * len(wanted)
    exact = sum(outcome.verdict == Method.RET_SITES.value for outcome in outcomes)
    assert exact / len(outcomes) > _LEAST_SHARE, [(each.name, each.reason) for each in outcomes if each.reason]


def test_the_c_library_with_its_assembly() -> None:
    """In a static program, with the C library's hand-written code, every 5th function has a verdict that objdump shares."""
    path = _RECIPES["gcc/static"].obtain()
    image, listed = elf_images.program(path), listing(path)
    outcomes = list(check.check(image, listed, check.functions(image)[::5]))
    assert len(outcomes) > 200
    assert [(outcome.name, outcome.faults) for outcome in outcomes if outcome.faults] == []
    assert {outcome.verdict for outcome in outcomes} == {"ret_sites", "entry_only", "refused"}


@pytest.fixture(scope="module")
def shapes() -> tuple[Program, Listing, Function]:
    """A small program, its listing, and a function of it with several returns."""
    path = _RECIPES["gcc/O2"].obtain()
    image = elf_images.program(path)
    return image, listing(path), image.symbols.by_name["dense"][0]


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda sites: [replace(sites[0], offset=sites[0].offset + 1), *sites[1:]], "is inside an instruction"),
        (lambda sites: [*sites[:-1], replace(sites[-1], original=b"\xc3\x90")], "has 2 bytes, 1 by objdump"),
        (lambda sites: sites[:-1], "is left out"),
        (lambda sites: [*sites[:-1], replace(sites[-1], offset=sites[0].offset, original=sites[0].original)], "is no return"),
    ],
)
def test_the_check_sees_what_is_wrong(shapes, monkeypatch, damage, fault) -> None:
    """A site off a boundary, of another length, missing, or of another kind is a fault."""
    image, listed, function = shapes

    def damaged(*arguments: object) -> FunctionPlan:
        plan = plan_functions(*arguments)
        return replace(plan, sites=tuple(damage(list(plan.sites))))

    assert [outcome.faults for outcome in check.check(image, listed, [function])] == [()]
    monkeypatch.setattr(check, "plan_functions", damaged)
    (outcome,) = check.check(image, listed, [function])
    assert any(fault in each for each in outcome.faults), outcome.faults
