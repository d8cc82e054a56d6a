"""What a process that nobody vouches for sends is data of the right shape, or nothing."""

from __future__ import annotations

import dataclasses
import json

import pytest

from coral.elf.image import ImageInfo
from coral.elf.inspect_messages import explanation_from_json, page_from_json
from coral.elf.messages import error_from_json, error_to_json, info_from_json, info_to_json, plan_from_json, plan_to_json
from coral.elf.shape import shaped
from coral.model.addresses import FileOffset
from coral.model.errors import AmbiguousName, NotFound
from coral.model.site import FunctionPlan, Method, Pairing, Site, SiteKind

_INFO = ImageInfo(image_id="build-id:00", build_id="00", machine="x86_64", language="c", go_version="", pie=True)
_PLAN = FunctionPlan(
    name="f",
    language="c",
    pairing=Pairing.STACK_POINTER,
    method=Method.RET_SITES,
    reason="",
    sites=(
        Site(offset=FileOffset(16), kind=SiteKind.ENTRY, reason="first", original=b"\x55"),
        Site(offset=FileOffset(20), kind=SiteKind.RETURN, reason="ret", original=b"\xc3"),
    ),
)


def _sent(value: object) -> object:
    """As it comes out of JSON."""
    return json.loads(json.dumps(value))


def test_what_was_sent_comes_back() -> None:
    """Values and errors, unchanged."""
    assert info_from_json(_sent(info_to_json(_INFO))) == _INFO
    assert plan_from_json(_sent(plan_to_json(_PLAN))) == _PLAN
    error = error_from_json(_sent(error_to_json(AmbiguousName("two", hint="choose", details={"names": "a\nb"}))))
    assert (type(error), error.message, error.hint, error.details) == (AmbiguousName, "two", "choose", {"names": "a\nb"})
    assert type(error_from_json(_sent(error_to_json(NotFound("none"))))) is NotFound


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sites": []}, "a plan with 0 entries among 0 sites"),
        ({"sites": "abc"}, "FunctionPlan.sites is not a list"),
        ({"name": 7}, "FunctionPlan.name is not text"),
        ({"name": "\ud800"}, "surrogates not allowed"),
        ({"method": "hook"}, "'hook' is not a valid Method"),
        ({"extra": 1}, "FunctionPlan has not the parts that it must have"),
        ({"offset": -1}, "Site.offset is negative"),
        ({"offset": 1 << 64}, "Site.offset is too large"),
        ({"offset": True}, "Site.offset is not of type"),
        ({"offset": 1.5}, "Site.offset is not of type"),
        ({"original": ""}, "a site at 0x10 with 0 bytes"),
        ({"original": "90" * 16}, "a site at 0x10 with 16 bytes"),
        ({"original": "zz"}, "non-hexadecimal"),
        ({"condition": 16}, "and condition 16"),
        ({"reason": None}, "Site.reason is not text"),
    ],
)
def test_a_plan_of_another_shape_is_refused(change: dict[str, object], complaint: str) -> None:
    """Nothing of it reaches the kernel."""
    value = plan_to_json(_PLAN)
    of_site = {field.name for field in dataclasses.fields(Site)}
    for key, changed in change.items():
        (value["sites"][0] if key in of_site and key != "name" and change.keys() <= of_site else value)[key] = changed
    with pytest.raises(ValueError, match=complaint):
        plan_from_json(value)


def test_a_plan_with_more_sites_than_a_link_takes_is_refused() -> None:
    """65,535 is the most."""
    value = plan_to_json(_PLAN)
    value["sites"] *= 40_000
    with pytest.raises(ValueError, match="among 80000 sites"):
        plan_from_json(value)


@pytest.mark.parametrize("value", [None, 1, "text", [], {}, {"code": 1}, [[[[[[[[[[1]]]]]]]]]]])
def test_anything_else_is_refused_everywhere(value: object) -> None:
    """By ValueError, the one error that is expected."""
    for decode in (info_from_json, plan_from_json, error_from_json, page_from_json, explanation_from_json):
        with pytest.raises(ValueError, match=r"has not the parts|is not"):
            decode(value)
    with pytest.raises(ValueError, match="int is not of type"):
        shaped(int, value if value != 1 else "1")
