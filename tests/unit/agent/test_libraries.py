"""Which of several libraries is meant."""

from __future__ import annotations

import pytest

from coral.agent.libraries import Found, is_called, the_one
from coral.model.errors import AmbiguousName


def _found(path: str, *, exported: bool = True, deleted: bool = False) -> Found[str]:
    return Found(path=path, exported=exported, deleted=deleted, what=path)


def test_a_library_is_called_by_the_end_of_its_path() -> None:
    """The base name will do, and whatever more of the path tells two apart; never a part of a name."""
    path = "/opt/one/plugin.so"
    assert all(is_called(path, library) for library in ("plugin.so", "one/plugin.so", "/one/plugin.so", path))
    assert not any(is_called(path, library) for library in ("in.so", "two/plugin.so", "plugin", ""))


def test_what_is_exported_comes_before_what_is_not_and_the_loader_last() -> None:
    """The loader's own memcpy and a static function of another library are not what callers of the name reach."""
    loader, libc = _found("/lib64/ld-linux-x86-64.so.2"), _found("/lib/libc.so.6")
    assert the_one([loader, libc, _found("/lib/libz.so", exported=False)], "memcpy", "app").what == libc.what
    assert the_one([loader], "_dl_open", "app").what == loader.what
    musl = _found("/lib/ld-musl-x86_64.so.1")
    with pytest.raises(AmbiguousName):
        the_one([musl, _found("/lib/libjemalloc.so.2")], "malloc", "app")


def test_a_replaced_file_gives_way_to_its_successor() -> None:
    """A plugin that is loaded anew is the one that is meant, also while the old one is still mapped."""
    old, new = _found("/opt/plugin.so", deleted=True), _found("/opt/plugin.so")
    assert the_one([old, new], "work", "app") is new
    assert the_one([old], "work", "app") is old


def test_libraries_that_are_as_good_are_named_so_that_one_can_be_chosen() -> None:
    """By their base names, and by their paths where those are the same."""
    found = [_found("/a/x.so"), _found("/b/x.so"), _found("/b/y.so")]
    with pytest.raises(AmbiguousName) as caught:
        the_one(found, "init", "app (pid 7)")
    assert caught.value.message == "'init' means functions of 3 libraries of app (pid 7)."
    assert caught.value.hint == "Choose one: /a/x.so!init, /b/x.so!init, y.so!init."
