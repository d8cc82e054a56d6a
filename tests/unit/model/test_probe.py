"""What may be requested."""

import pytest

from coral.model.errors import InvalidArgument
from coral.model.probe import ProbeFilter, ProbeSpec, check_sdk_addr, split_function

SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("work", ("", "work")),
        ("libc.so.6!malloc", ("libc.so.6", "malloc")),
        ("dup_a.c:work", ("", "dup_a.c:work")),
        ("Vec::operator!=", ("", "Vec::operator!=")),
        ("libvec.so!Vec::operator!", ("libvec.so", "Vec::operator!")),
    ],
)
def test_a_function_may_name_its_library(text: str, parts: tuple[str, str]) -> None:
    """The first exclamation mark divides, unless it belongs to a C++ operator."""
    assert split_function(text) == parts


@pytest.mark.parametrize("name", ["!work", "libx.so!", "!"])
def test_half_a_function_is_refused(name: str) -> None:
    """It would wait for ever for a library or a function that has no name."""
    with pytest.raises(InvalidArgument, match="LIBRARY!NAME"):
        ProbeSpec(service_name="shop", function_name=name)


def test_a_duration_just_out_of_range_is_told_as_it_is() -> None:
    """The message does not round it into the range."""
    with pytest.raises(InvalidArgument, match=r"600\.000000001 s is out of range"):
        ProbeSpec(service_name="shop", function_name="pay", duration_ns=600 * SECOND + 1)


@pytest.mark.parametrize("seconds", [-5, 0, 0.999, 600.001, 601])
def test_durations_out_of_range_are_refused(seconds: float) -> None:
    """Nothing is clamped: the message names the range."""
    with pytest.raises(InvalidArgument, match="Choose between 1 s and 600 s"):
        ProbeSpec(service_name="shop", function_name="pay", duration_ns=round(seconds * SECOND))


@pytest.mark.parametrize("name", ["", "a" * 1025, "new\nline", "bell\a", "esc\x1b[2J", "\ud800"])
def test_names_that_cannot_be_names_are_refused(name: str) -> None:
    """Empty, too long, or with something unprintable in it."""
    with pytest.raises(InvalidArgument):
        ProbeSpec(service_name=name, function_name="pay")
    with pytest.raises(InvalidArgument):
        ProbeSpec(service_name="shop", function_name=name)


def test_a_filter_that_nothing_passes_is_refused() -> None:
    """A maximum below the minimum is a mistake."""
    with pytest.raises(InvalidArgument, match="Swap them"):
        ProbeSpec(
            service_name="shop", function_name="pay", filter=ProbeFilter(min_duration_ns=2 * SECOND, max_duration_ns=SECOND)
        )


@pytest.mark.parametrize("bound", ["min_duration_ns", "max_duration_ns"])
def test_a_filter_beyond_what_the_kernel_counts_is_refused(bound: str) -> None:
    """A protobuf Duration holds 10,000 years, the kernel's tables 64 bits of ns."""
    longest = (1 << 63) - 1
    ProbeSpec(service_name="shop", function_name="pay", filter=ProbeFilter(**{bound: longest}))
    with pytest.raises(InvalidArgument, match="longer than 292 years"):
        ProbeSpec(service_name="shop", function_name="pay", filter=ProbeFilter(**{bound: longest + 1}))


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1:50051", "127.8.9.1:1", "localhost:80", "[::1]:80", "unix:/run/x.sock", "/run/x"]
)
def test_addresses_of_this_host_are_hints(address: str) -> None:
    """Loopback and unix sockets are accepted."""
    assert check_sdk_addr(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1:80",
        "example.com:80",
        "127.0.0.1",
        "127.0.0.1:0",
        "127.0.0.1:99999",
        "127.0.0.1.evil.com:80",
        "127.0.0.999:80",
        "unix:x",
    ],
)
def test_other_addresses_are_refused(address: str) -> None:
    """A caller cannot make the agent connect anywhere else."""
    with pytest.raises(InvalidArgument, match="not on this host"):
        check_sdk_addr(address)
