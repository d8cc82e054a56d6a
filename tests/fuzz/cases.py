"""One case: everything that Coral may be asked about one damaged image, in this process, by the code that readers run."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from dataclasses import asdict, dataclass, field

from coral.elf.demangle import demangle, language
from coral.elf.file import ElfFile
from coral.elf.grouping import spelled
from coral.elf.image import OpenFile
from coral.elf.plan import plan_functions
from coral.elf.program import Program
from coral.elf.symbols import Function
from coral.elf.worker import Worker
from coral.model.addresses import Vaddr
from coral.model.errors import CoralError
from fuzz.mutate import Mutant

_RANDOM_FUNCTIONS = 4
_PAGE = ["", 0, 500]


@dataclass(slots=True, kw_only=True)
class Tally:
    """What came of the requests of a case.

    Attributes:
        outcomes: How often each, as ``operation: outcome``.
        worst_s: The CPU time of the slowest request.
        worst: Which that was.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    worst_s: float = 0.0
    worst: str = ""

    def note(self, operation: str, outcome: str, spent_s: float) -> None:
        """One request."""
        self.outcomes[f"{operation}: {outcome}"] += 1
        if spent_s > self.worst_s:
            self.worst_s, self.worst = spent_s, operation


def requests(mutant: Mutant) -> list[dict[str, object]]:
    """What is asked about an image, as the worker is asked."""
    return [
        {"operation": "identify"},
        {"operation": "list", "page": _PAGE},
        *({"operation": "plan", "function": function, "library": "", "advise": True} for function in mutant.seed.functions),
        {"operation": "plan", "function": "no_such_function", "library": "", "advise": True},
        {"operation": "explain", "function": mutant.seed.functions[0], "library": ""},
        {"operation": "judge", "page": _PAGE, "budget_s": 0.1},
    ]


def files(mutant: Mutant) -> list[OpenFile]:
    """The mutant in memory, open, and the file with its symbols, if there is one."""
    opened = []
    for name, content in (("mutant", mutant.content), ("mutant.debug", mutant.debug)):
        if content or name == "mutant":
            fd = os.memfd_create(name, os.MFD_CLOEXEC)
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            opened.append(OpenFile(fd=fd, key=OpenFile.of(fd, name).key, path=name, linked=name != "mutant"))
    return opened


def run(mutant: Mutant, randomness: random.Random) -> Tally:
    """Asks everything about an image.

    Raises:
        Exception: Whatever is no CoralError: a defect.
    """
    tally = Tally()
    opened = files(mutant)
    descriptors = [file.fd for file in opened]
    named = [{"key": asdict(file.key), "path": file.path, "linked": file.linked} for file in opened]
    worker = Worker()
    try:
        for request in requests(mutant):
            start = time.process_time()
            answer = worker.answer({**request, "files": named}, descriptors)
            error = answer.get("error")
            outcome = str(error["code"]) if isinstance(error, dict) else "answered"
            tally.note(str(request["operation"]), outcome, time.process_time() - start)
        _wild_functions(tally, opened, randomness)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return tally


def _wild_functions(tally: Tally, opened: list[OpenFile], randomness: random.Random) -> None:
    """Analyses code at addresses where no function need be, as a damaged symbol would have it."""
    try:
        program = Program(ElfFile(opened[0].fd, opened[0].path), debug=opened[1:])
        segments = list(program.file.executable_segments)
    except CoralError:
        return
    for _ in range(_RANDOM_FUNCTIONS if segments else 0):
        segment = randomness.choice(segments)
        vaddr = segment.vaddr + randomness.randrange(max(1, min(segment.file_size_bytes, 1 << 24)))
        size_bytes = randomness.choice((1, 7, 64, 300, 5000, 1 << 20))
        function = Function(name="wild", vaddr=Vaddr(vaddr), size_bytes=size_bytes)
        start = time.process_time()
        try:
            outcome = str(plan_functions(program, "wild", (function,)).method)
        except CoralError as error:
            outcome = error.code
        tally.note("plan of any address", outcome, time.process_time() - start)


def run_name(name: str) -> Tally:
    """Reads one mangled name."""
    tally = Tally()
    start = time.process_time()
    try:
        language(name)
        demangle(name)
        outcome = "read" if spelled(name) is not None else "not understood"
    except CoralError as error:
        outcome = error.code
    tally.note("name", outcome, time.process_time() - start)
    return tally
