"""The process that the agent probes to learn what a trap costs: ``python -m coral.agent.trap_target FD``.

FD is a file with the code below. A line on stdin is the offset of a function and a number; the answer is how many ns of this
thread's CPU time so many calls of it took.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import time

CODE_BYTES = 4096
EMULATED = 0x100
STEPPED = 0x200

_LOOP = bytes.fromhex(
    "53"  # push rbx
    "4154"  # push r12
    "55"  # push rbp, so that the stack is aligned at the call
    "4889fb"  # mov rbx, rdi
    "4989f4"  # mov r12, rsi
    "ffd3"  # call rbx
    "49ffcc"  # dec r12
    "75f9"  # jnz to the call
    "5d415c5bc3"  # pop rbp, r12, rbx; ret
)
_FUNCTIONS = {
    EMULATED: bytes.fromhex("555dc3"),  # push rbp; pop rbp; ret
    STEPPED: bytes.fromhex("89f8c3"),  # mov eax, edi; ret
}


def code() -> bytes:
    """A page with ``run(function, count)`` at its beginning, and a function that begins with an instruction of each kind."""
    page = bytearray(b"\xcc" * CODE_BYTES)
    page[: len(_LOOP)] = _LOOP
    for offset, function in _FUNCTIONS.items():
        page[offset : offset + len(function)] = function
    return bytes(page)


def main() -> None:
    """Maps the code and calls it as often as it is asked to."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    # Private and not writable: probes are not put into other mappings (valid_vma of kernel/events/uprobes.c).
    base = libc.mmap(None, CODE_BYTES, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, int(sys.argv[1]), 0)
    if base in (None, ctypes.c_void_p(-1).value):
        sys.exit(f"the code cannot be mapped: errno {ctypes.get_errno()}")
    run = ctypes.CFUNCTYPE(None, ctypes.c_size_t, ctypes.c_size_t)(base)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        offset, count = map(int, line.split())
        begun_ns = time.thread_time_ns()
        run(base + offset, count)
        sys.stdout.write(f"{time.thread_time_ns() - begun_ns}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
