"""Which function a name means."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import elf_images

from coral.elf import names
from coral.elf.program import Program
from coral.model.errors import AmbiguousName, FailedPrecondition, NotFound

_OLD = "main.Old[go.shape.int_0,go.shape.[]main.T_2_1]"
_ALL = (
    "process_request",
    "process_request_line",
    "work.constprop.0",
    "work.constprop.0.isra.0",
    "whole",
    "whole.part.0",
    "whole.cold",
    "gone.part.0",
    "main.ProcessPayment",
    "net/http.serverHandler.ServeHTTP",
    "net/http.HandlerFunc.ServeHTTP",
    "main.(*base).Meth",
    "main.F[go.shape.int]",
    "main.F[go.shape.float64]",
    _OLD,
    "main.F[int]",
    "main.(*List[go.shape.string]).Push",
    "type:.eq.main.pair",
    "_ZN4shop4workEi",
    "inner.0",
    "visit.1",
    "visit.2",
    "main.init.0",
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """An image with functions of all those names."""
    body = "".join(f'.globl "{name}"\n.type "{name}", @function\n"{name}": ret\n.size "{name}", 1\n' for name in _ALL)
    path = tmp_path_factory.mktemp("names") / "names.so"
    return elf_images.program(elf_images.gcc(path, f".text\n{body}", "-shared", "-nostdlib"))


def _found(image: Program, text: str) -> tuple[str, list[str]]:
    match = names.find(image.symbols, text, "shop")
    return match.name, sorted(function.name for function in match.functions)


@pytest.mark.parametrize(
    ("text", "name", "functions"),
    [
        ("process_request", "process_request", ["process_request"]),
        ("process_request@@Base", "process_request", ["process_request"]),
        ("main.ProcessPayment", "main.ProcessPayment", ["main.ProcessPayment"]),
        ("ProcessPayment", "main.ProcessPayment", ["main.ProcessPayment"]),
        ("serverHandler.ServeHTTP", "net/http.serverHandler.ServeHTTP", ["net/http.serverHandler.ServeHTTP"]),
        ("http.serverHandler.ServeHTTP", "net/http.serverHandler.ServeHTTP", ["net/http.serverHandler.ServeHTTP"]),
        ("Meth", "main.(*base).Meth", ["main.(*base).Meth"]),
        ("(*base).Meth", "main.(*base).Meth", ["main.(*base).Meth"]),
        ("work", "work", ["work.constprop.0", "work.constprop.0.isra.0"]),
        ("whole", "whole", ["whole"]),
        ("inner", "inner", ["inner.0"]),
        ("visit.2", "visit.2", ["visit.2"]),
        ("init.0", "main.init.0", ["main.init.0"]),
        ("main.F[int]", "main.F[go.shape.int]", ["main.F[go.shape.int]"]),
        ("Old[int,[]main.T_2]", _OLD, [_OLD]),
        ("main.Old", "main.Old", [_OLD]),
        ("main.F", "main.F", ["main.F[go.shape.float64]", "main.F[go.shape.int]"]),
        ("F", "main.F", ["main.F[go.shape.float64]", "main.F[go.shape.int]"]),
        ("main.(*List).Push", "main.(*List).Push", ["main.(*List[go.shape.string]).Push"]),
        ("main.(*List[string]).Push", "main.(*List[go.shape.string]).Push", ["main.(*List[go.shape.string]).Push"]),
        ("type:.eq.main.pair", "type:.eq.main.pair", ["type:.eq.main.pair"]),
    ],
)
def test_a_name_means_a_function_and_its_clones(image: Program, text: str, name: str, functions: list[str]) -> None:
    """Exact names, ends of names behind a separator, versions, clones, and generics with and without their arguments."""
    assert _found(image, text) == (name, functions)


def test_several_functions_are_listed(image: Program) -> None:
    """The hint has what to choose from."""
    with pytest.raises(AmbiguousName) as caught:
        names.find(image.symbols, "ServeHTTP", "shop")
    assert caught.value.message == "'ServeHTTP' means 2 functions of shop."
    assert caught.value.hint == "Choose one: net/http.HandlerFunc.ServeHTTP, net/http.serverHandler.ServeHTTP."


def test_an_unknown_name_is_answered_with_the_nearest_ones(image: Program) -> None:
    """A misspelling finds what was meant, first."""
    with pytest.raises(NotFound) as caught:
        names.find(image.symbols, "proces_reqest", "shop")
    assert caught.value.message == "shop has no function 'proces_reqest'."
    assert re.match(r"The nearest are: process_request, ", caught.value.hint)
    assert caught.value.details["nearest"].splitlines()[0] == "process_request"


def test_other_capitals_are_the_nearest_of_all(image: Program) -> None:
    """Who typed a name in another case is told of the right one, with its package or without."""
    for text, name in (("PROCESS_REQUEST", "process_request"), ("processpayment", "main.ProcessPayment")):
        with pytest.raises(NotFound) as caught:
            names.find(image.symbols, text, "shop")
        assert caught.value.details["nearest"].splitlines()[0] == name


def test_functions_inside_of_others_are_told_apart_by_their_numbers(image: Program) -> None:
    """GCC numbers nested functions: the name in the source means the only one, and else what to choose from."""
    with pytest.raises(AmbiguousName) as caught:
        names.find(image.symbols, "visit", "shop")
    assert caught.value.hint == "Choose one: visit.1, visit.2."


def test_a_control_character_does_not_reach_the_message(image: Program) -> None:
    """What a caller sends is shown escaped."""
    with pytest.raises(NotFound, match=r"no function '\\\\x1b\[2J'"):
        names.find(image.symbols, "\x1b[2J", "shop")


def test_what_was_split_off_is_no_function_of_its_own(image: Program) -> None:
    """Only some of the calls go to NAME.part.0, so it is never an entry, and that is said."""
    for text in ("gone", "gone.part.0"):
        with pytest.raises(FailedPrecondition, match=r"was inlined into its callers in shop; only gone\.part\.0 is left"):
            names.find(image.symbols, text, "shop")


def test_an_image_without_any_function_names_says_so(tmp_path: Path) -> None:
    """A fully stripped static program has nothing to match against."""
    path = elf_images.gcc(tmp_path / "bare.so", ".text\n nop\n", "-shared", "-nostdlib", "-s")
    with pytest.raises(NotFound, match="names no functions: it was stripped"):
        names.find(elf_images.program(path).symbols, "main", "bare.so")


def test_search_gives_names_that_hold_the_text(image: Program) -> None:
    """The beginning of a name is enough."""
    assert names.nearest(image.symbols, "process_req")[:2] == ["process_request", "process_request_line"]


def test_several_names_of_one_place_are_one_function(tmp_path: Path) -> None:
    """Go's linker gives the functions of a plugin a second name: what ends like both means the one function."""
    image = elf_images.assembly(
        tmp_path,
        """
        .globl local.shop.Work
        .type local.shop.Work, @function
        local.shop.Work:
        function shop.Work
            ret
        end shop.Work
        .size local.shop.Work, .-local.shop.Work
        """,
    )
    assert _found(image, "Work") == ("shop.Work", ["shop.Work"])
    assert _found(image, "local.shop.Work") == ("local.shop.Work", ["local.shop.Work"])
