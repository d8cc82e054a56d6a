"""Where a goroutine keeps what tells it from the next one that gets its place in memory.

Goroutines that ended are used again, for others. A ``runtime.g`` has a number, goid, that no other ever has, behind its
``atomicstatus`` and a word of 32 bits (runtime/runtime2.go, the same since Go 1.18). Where these lie changes, and is said
by the code that changes the status: ``runtime.casgstatus``.
"""

from __future__ import annotations

import re

from coral.elf.program import Program

_CHANGES_STATUS = "runtime.casgstatus"
# lock cmpxchg %reg32,disp32(%reg): f0, perhaps REX, 0f b1, ModRM with mod 2 and no SIB byte (Intel SDM volume 2)
_COMPARE_AND_SWAP = re.compile(rb"\xf0[\x40-\x47]?\x0f\xb1([\x80-\xbf])(....)", re.DOTALL)
_SIB = 4
_GOID_BEHIND_STATUS = 8
_FARTHEST = 255 * 8
"""What fits a cookie."""


def goid_offset(program: Program) -> int:
    """How many bytes behind the start of a goroutine its number is; 0 when the code does not say it clearly."""
    places = set()
    for function in program.symbols.by_name.get(_CHANGES_STATUS, []):
        code = program.file.read(function.vaddr, function.size_bytes)
        for match in _COMPARE_AND_SWAP.finditer(code):
            if match[1][0] & 7 != _SIB:
                places.add(int.from_bytes(match[2], "little"))
    if len(places) != 1:
        return 0
    (status,) = places
    offset = status + _GOID_BEHIND_STATUS
    return offset if offset % 8 == 0 and 0 < offset <= _FARTHEST else 0
