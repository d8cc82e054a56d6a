"""A program as large as production services are: 100,000 functions in 100 MB, made in seconds."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

FUNCTIONS = 100_000
_DATA_BYTES = 84_000_000
_MAIN = "int usleep(unsigned); int main(void) { for (;;) usleep(100000); }\n"


def large_program(folder: Path, *, functions: int = FUNCTIONS, data_bytes: int = _DATA_BYTES) -> Path:
    """Assembles and links it in ``folder``. Its functions are ``shop::module0::step0(int)`` and so on, beside main.

    Args:
        folder: Where to.
        functions: How many.
        data_bytes: Of initialized data beside them.
    """
    source, main, program = folder / "large.s", folder / "main.c", folder / "large"
    source.write_text("".join(_lines(functions, data_bytes)))
    main.write_text(_MAIN)
    subprocess.run(["gcc", "-O1", "-o", program, main, source], check=True, capture_output=True)
    source.unlink()
    return program


def _lines(functions: int, data_bytes: int) -> Iterator[str]:
    yield '.section .note.GNU-stack,"",@progbits\n.data\n.globl ballast\nballast: .byte 1\n'
    yield f".zero {data_bytes}\n.text\n"
    for number in range(functions):
        module, step = f"module{number // 1000}", f"step{number}"
        name = f"_ZN4shop{len(module)}{module}{len(step)}{step}Ei"
        yield f".globl {name}\n.type {name}, @function\n{name}:\n"
        yield f"push %rbp\nmov %rsp, %rbp\ntest %edi, %edi\nje 1f\nlea {number & 127}(%rdi), %eax\npop %rbp\nret\n"
        yield f"1: mov ${number}, %eax\npop %rbp\nret\n.size {name}, . - {name}\n.p2align 4\n"
