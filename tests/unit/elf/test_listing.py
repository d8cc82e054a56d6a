"""Lists of functions: which match, in which order, and what is said of each."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import elf_images

from coral.elf.inspect_messages import page_from_json, page_to_json
from coral.elf.listing import Listing
from coral.model.inspection import FunctionPage

_SOURCE = """
    function _ZN4shop5priceEi
        push %rbx
        pop %rbx
        ret
    end _ZN4shop5priceEi
    function work
        ret
    end work
    function work.constprop.0
        ret
    end work.constprop.0
    function spin
        jmp spin
    end spin
    function broken
        .byte 0x06
    end broken
    function sizeless
        ret
    function huge
        .fill 70000, 1, 0x90
        ret
    end huge
"""


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    """Of a library with one function of each kind."""
    return Listing(elf_images.assembly(tmp_path, _SOURCE))


def rows(page: FunctionPage) -> list[tuple[str, str, str, str, str]]:
    """Name, demangled name, language, verdict and reason of each function on a page."""
    return [
        (
            page.names[index],
            page.demangled[index],
            page.language_words[page.languages[index]],
            page.verdict_values[page.verdicts[index]].probeable,
            page.verdict_values[page.verdicts[index]].reason,
        )
        for index in range(len(page.names))
    ]


def test_every_function_has_a_verdict(listing: Listing) -> None:
    """After decoding, each function says whether it can be probed, and why not; a clone is its original."""
    assert listing.judge("", 0, 100, budget_s=10) == 0
    page = listing.page("", 0, 100)
    assert rows(page) == [
        ("broken", "", "c", "no", "has no code that decodes"),
        ("huge", "", "c", "yes", "is larger than 64 KiB and was not decoded: this is by the symbol table alone"),
        ("_ZN4shop5priceEi", "shop::price(int)", "cpp", "yes", ""),
        ("sizeless", "", "c", "no", "has no size in the symbol table, so where it ends is not known"),
        ("spin", "", "c", "no", "jumps back to its first instruction"),
        ("work", "", "c", "yes", ""),
    ]
    assert (page.matches, page.next_offset, page.undecided) == (6, 0, 1)


def test_what_is_not_decoded_says_so(listing: Listing) -> None:
    """Without time to decode, a verdict is by the tables alone, and those of refused symbols are final."""
    page = listing.page("", 0, 100)
    by_name = {row[0]: row[3:] for row in rows(page)}
    assert by_name["work"] == ("yes", "has not been decoded: this is by the symbol table alone")
    assert by_name["sizeless"][0] == "no"
    assert page.undecided == 5
    assert listing.judge("", 0, 100, budget_s=-1) == 4
    assert listing.judge("work", 0, 100, budget_s=10) == 0
    assert {row[0]: row[3:] for row in rows(listing.page("", 0, 100))}["work"] == ("yes", "")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("ork", ["work"]),
        ("shop::pr", ["_ZN4shop5priceEi"]),
        ("ZN4", ["_ZN4shop5priceEi"]),
        ("*pri?e*", ["_ZN4shop5priceEi"]),
        ("w*", ["work"]),
        ("or*", []),
        ("Work", []),
        ("s*", ["_ZN4shop5priceEi", "sizeless", "spin"]),
        ("[sw]*", []),
    ],
)
def test_patterns(listing: Listing, pattern: str, names: list[str]) -> None:
    """A pattern is part of a name or symbol, with * or ? a glob over all of it; case counts, brackets are themselves."""
    assert listing.page(pattern, 0, 100).names == names


def test_pages(listing: Listing) -> None:
    """Pages follow each other without gap or overlap, and the last one says that it is."""
    first, second = listing.page("", 0, 4), listing.page("", 4, 4)
    assert first.names + second.names == listing.page("", 0, 100).names
    assert (first.next_offset, second.next_offset, first.matches, second.matches) == (4, 0, 6, 6)


def test_a_page_survives_the_socket(listing: Listing) -> None:
    """A page in JSON and back is the same page; an empty one too."""
    for pattern in ("", "nothing of that name"):
        page = listing.page(pattern, 0, 100)
        assert page_from_json(page_to_json(page)) == page


def test_a_page_that_does_not_add_up_is_refused(listing: Listing) -> None:
    """What a worker sends is checked: columns of one length, and numbers that stand for something."""
    value = page_to_json(listing.page("", 0, 100))
    for broken in (
        {"languages": "00" * 4},
        {"verdicts": "63000000" * 6},
        {"names": "one"},
        {"count": 2},
        {"languages": "00"},
    ):
        with pytest.raises(ValueError, match=r"list|buffer"):
            page_from_json({**value, **broken})
