from __future__ import annotations

import pytest

from coral.procfs.environ import Environ, parse_environ


@pytest.mark.parametrize(
    ("data", "variables", "overwritten"),
    [
        (b"", {}, False),
        (b"A=1\0B=\0C=x=y\0", {"A": "1", "B": "", "C": "x=y"}, False),
        (b"A=1\0A=2\0", {"A": "1"}, False),
        (b"A=two\nlines\0", {"A": "two\nlines"}, False),
        (b"BASH_FUNC_x%%=() {  :\n}\0", {"BASH_FUNC_x%%": "() {  :\n}"}, False),
        (b"A=\xff\0", {"A": "\udcff"}, False),
        (b"\0\0\0\0\0\0", {}, True),
        (b"\0\0\0A=1\0", {"A": "1"}, True),
        (b"n on; master_process on;\0\0\0\0\0", {}, True),
        (b" env FOO=bar;\0\0\0", {}, True),
        (b"LE=1\0no equals sign\0", {"LE": "1"}, True),
    ],
)
def test_what_is_left_of_an_environment(data: bytes, variables: dict[str, str], overwritten: bool) -> None:
    """Variables are read, and titles and padding written over them are noticed."""
    assert parse_environ(data) == Environ(variables=variables, overwritten=overwritten)


def test_values_are_never_printed() -> None:
    """An environment holds secrets: its text form does not show them."""
    assert repr(parse_environ(b"PASSWORD=hunter2\0")) == "Environ(1 variables, overwritten=False)"
