"""Which names are those of functions that never return."""

from __future__ import annotations

import pytest

from coral.elf import noreturn


@pytest.mark.parametrize(
    "name",
    [
        *("abort", "exit", "__cxa_throw", "_ZSt9terminatev", "_ZSt20__throw_length_errorPKc", "_ZSt17__throw_bad_allocv"),
        *("_ZSt17rethrow_exceptionNSt15__exception_ptr13exception_ptrE", "__clang_call_terminate"),
        *(
            "_RINvNtCsgEmfK2I1SDS_4core9panicking13assert_failedllECsjrHSEGnQ3l9_3std",
            "_RNvNtCsgEmfK2I1SDS_4core9panicking5panic",
        ),
        *(
            "_RNvNtNtCsgEmfK2I1SDS_4core9panicking11panic_const23panic_const_div_by_zero",
            "_RNvNtCsjrHSEGnQ3l9_3std7process4exit",
        ),
        *("_ZN4core9panicking5panic17h0123456789abcdefE", "_ZN4core9panicking18panic_bounds_check17h0123456789abcdefE"),
        *("_ZN4core6option13unwrap_failed17h0123456789abcdefE", "_ZN3std7process5abort17h0123456789abcdefE"),
    ],
)
def test_it_never_returns(name: str) -> None:
    """The standard libraries' ways to end a program, or to leave by an exception or a panic."""
    assert noreturn.is_known(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "exit_group_name", "aborted", "_ZSt4sortv", "_ZSt17current_exceptionv", "_ZN4shop20__throw_length_errorEv"),
        *("_ZN3std9panicking11panic_count8increase17h0123456789abcdefE", "_RNvNtCs1234_4shop9panicking5panic"),
        *(
            "_ZN3std7process7Command3new17h0123456789abcdefE",
            "_RNvXs_NtCs1234_4core9panickingNtB4_10AssertKindNtNtB6_3fmt5Debug3fmt",
        ),
    ],
)
def test_it_may_return(name: str) -> None:
    """Names that only look alike."""
    assert not noreturn.is_known(name)
