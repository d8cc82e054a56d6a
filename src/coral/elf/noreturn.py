"""Functions that are known by their names never to return.

Of C, names that ISO C and POSIX reserve, glibc's and GCC's own: no program may give them to something else; of C++ and Rust,
names of their standard libraries. One that is missing here costs nothing but precision (see flow.py), which is why Go's are:
its compiler keeps code behind some of them.
"""

from __future__ import annotations

import re

_C = frozenset(
    (
        *("abort", "exit", "_exit", "_Exit", "quick_exit", "longjmp", "_longjmp", "siglongjmp", "__longjmp_chk"),
        *("pthread_exit", "thrd_exit", "__stack_chk_fail", "__assert_fail", "__assert", "__assert_perror_fail"),
        *("__fortify_fail", "__chk_fail", "__libc_fatal", "__libc_start_main", "_Unwind_Resume", "__cxa_throw"),
        *("__cxa_rethrow", "__cxa_bad_cast", "__cxa_bad_typeid", "__cxa_throw_bad_array_new_length"),
        *("__cxa_call_unexpected", "__cxa_call_terminate", "__cxa_pure_virtual", "__clang_call_terminate"),
    )
)
_CPP = re.compile(r"_ZSt(?:9terminatev|17rethrow_exceptionNSt|\d+__throw_)|_ZSt21__glibcxx_assert_fail")
_DIVERGING = r"(?:9panicking\d+(?:panic|assert_failed|unreachable)|6option13(?:unwrap|expect)_failed|6result13unwrap_failed)"
# A path is _ZN and its parts, each behind its length (legacy), or _R with their kinds before them (v0, RFC 2603).
_RUST = re.compile(
    rf"_ZN4core{_DIVERGING}|_ZN3std7process(?:4exit|5abort)17h"
    rf"|_RI?Nv(?:Nt)+Cs\w+?_(?:4core(?:9panicking11panic_const\d+panic|{_DIVERGING})|3std7process(?:4exit|5abort)$)"
)


def is_known(name: str) -> bool:
    """Whether a symbol names a function that never returns."""
    return name in _C or _CPP.match(name) is not None or _RUST.match(name) is not None
