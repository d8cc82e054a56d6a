"""The same cases through the agent's own parser: what an agent feels of them."""

from __future__ import annotations

import asyncio
import os
import time

from coral.elf.parser import Parser
from coral.model.errors import CoralError, DeadlineExceeded, Internal
from fuzz import cases
from fuzz.campaign import Report, case, peak_bytes
from fuzz.mutate import Mutant
from fuzz.seeds import Seed


def run(images: list[Seed], *, seed: int, count: int, limit_s: float = 20.0) -> Report:
    """Asks the parser about mutants, one after the other.

    A defect is an exception of another kind than CoralError, the loss of a reader, an answer later than the limit, a template
    that had to be replaced, or a reader beyond its memory.
    """
    return asyncio.run(_run(images, seed, count, limit_s))


async def _run(images: list[Seed], seed: int, count: int, limit_s: float) -> Report:
    report = Report(seed=seed, cases=count, clock="s")
    start = time.monotonic()
    intact = cases.files(Mutant(seed=images[0], content=images[0].content, debug=b"", damage=()))
    async with Parser(limit_s=limit_s) as parser:
        # An agent, too, has one file read before it says that it is ready: the imports are not part of a question.
        await parser.identify(intact[0].fd, intact[0].key, intact[0].path)
        os.close(intact[0].fd)
        template = parser.template_pid
        for number in range(count):
            await _one(parser, report, seed, number, images, limit_s)
            if parser.template_pid != template:
                report.defects.append(f"case {number}: the template was replaced")
                template = parser.template_pid
    report.duration_s = time.monotonic() - start
    return report


async def _one(parser: Parser, report: Report, seed: int, number: int, images: list[Seed], limit_s: float) -> None:
    _, damaged = case(seed, number, images)
    opened = cases.files(damaged)
    image = opened[0]
    functions = damaged.seed.functions
    questions = (
        ("identify", lambda: parser.identify(image.fd, image.key, image.path)),
        ("list", lambda: parser.functions(opened, pattern="", offset=0, limit=500)),
        ("plan", lambda: parser.plan(image.fd, image.key, image.path, functions[0], debug=opened[1:])),
        ("explain", lambda: parser.explain(opened, functions[1])),
    )
    try:
        for operation, ask in questions:
            asked = time.monotonic()
            try:
                await ask()
                outcome = "answered"
            except CoralError as error:
                outcome = error.code
                if isinstance(error, Internal | DeadlineExceeded):
                    report.defects.append(f"case {number} ({damaged.seed.name}; {'; '.join(damaged.damage)}): {error}")
            spent_s = time.monotonic() - asked
            report.outcomes[f"{operation}: {outcome}"] += 1
            if spent_s > report.worst_s:
                report.worst_s, report.worst = spent_s, f"case {number}, {damaged.seed.name}, {operation}"
            if spent_s > 2 * limit_s + 1:
                report.defects.append(f"case {number}: {operation} was answered after {spent_s:.1f} s")
        if parser.reader_pids:
            report.memory_bytes = max(report.memory_bytes, peak_bytes(parser.reader_pids[-1]))
    finally:
        for file in opened:
            os.close(file.fd)
