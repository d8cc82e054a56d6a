"""Compiles src/coral/kernel/probe.bpf.c into the object beside it, with the zig that uv.lock pins.

``--check`` compiles elsewhere and compares byte for byte: the committed object is what the committed source says. Paths are
mapped away, so that the bytes do not depend on where the checkout or the compiler lies.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import ziglang

ROOT = Path(__file__).resolve().parent.parent
SOURCE = Path("src/coral/kernel/probe.bpf.c")
OBJECT = Path("src/coral/kernel/probe.bpf.o")


def compile_object(target: Path) -> None:
    """Compiles the source into ``target``; ends the program with the compiler's messages if it cannot."""
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        "bpfel-freestanding",
        "-O2",
        "-g",
        "-mcpu=v3",
        "-Wall",
        "-Werror",
    ]
    command += [f"-ffile-prefix-map={ROOT}=.", f"-ffile-prefix-map={Path(ziglang.__file__).parent}=zig"]
    command += ["-c", str(SOURCE), "-o", str(target)]
    cache = str(ROOT / "build" / "zig-cache")
    environment = {**os.environ, "ZIG_LOCAL_CACHE_DIR": cache, "ZIG_GLOBAL_CACHE_DIR": cache}
    if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
        sys.exit(f"build_bpf: {SOURCE} does not compile")


def check() -> None:
    """Ends the program with a message if the committed object is not what the source compiles to."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / OBJECT.name
        compile_object(fresh)
        if fresh.read_bytes() != (ROOT / OBJECT).read_bytes():
            sys.exit(f"build_bpf: {OBJECT} is not what {SOURCE} compiles to. Run `make bpf` and commit the object.")
    print(f"{OBJECT} is what {SOURCE} compiles to")


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        check()
    else:
        compile_object(ROOT / OBJECT)
