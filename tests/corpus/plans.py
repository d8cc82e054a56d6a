"""The plans of all functions of an image that can be probed, made once and kept."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from coral.elf.file import ElfFile
from coral.elf.plan import plan_functions
from coral.elf.program import Program
from coral.model.errors import FailedPrecondition
from coral.model.site import FunctionPlan
from corpus.check import functions
from corpus.recipes import BUILD
from corpus.run import Image, code_version

_CHUNK = 1_000
_KEPT = 8


def all_plans(path: Path, *, every: int = 1, processes: int = 2) -> list[FunctionPlan]:
    """A plan for every function, or every so many-th, that can be probed, by address.

    Blocking: 2 ms for each function, unless it was done before.

    Args:
        path: The image.
        every: 1 for all functions, 8 for every eighth.
        processes: How many work at the same time.
    """
    image = Image.of(path.name, path)
    kept = BUILD / "plans" / f"{image.digest}-{every}-{code_version()}.pickle"
    if kept.exists():
        found: list[FunctionPlan] = pickle.loads(kept.read_bytes())
        return found
    # Not forked: where gRPC's threads run, as in a run of all tests, a forked process may never get going.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        count = len(functions(_open(path)))
        parts = [pool.submit(_plans, path, start, every) for start in range(0, count, _CHUNK * every)]
        found = [plan for part in parts for plan in part.result()]
    kept.parent.mkdir(parents=True, exist_ok=True)
    half = kept.with_suffix(".half")
    half.write_bytes(pickle.dumps(found))
    half.replace(kept)
    for old in sorted(kept.parent.glob("*.pickle"), key=lambda each: each.stat().st_mtime)[:-_KEPT]:
        old.unlink()
    return found


_opened: dict[Path, Program] = {}


def _plans(path: Path, start: int, every: int) -> list[FunctionPlan]:
    if path not in _opened:
        _opened.clear()
        _opened[path] = _open(path)
    program = _opened[path]
    found = []
    for function in functions(program)[start : start + _CHUNK * every : every]:
        try:
            found.append(plan_functions(program, function.name, (function,)))
        except FailedPrecondition:
            continue
    return found


def _open(path: Path) -> Program:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return Program(ElfFile(fd, str(path)))
    finally:
        os.close(fd)
