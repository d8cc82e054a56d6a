"""Seconds of ``make fuzz``: the same mutants at each run, and those that once were defects."""

from __future__ import annotations

import os
import random

from coral.elf.file import ElfFile
from coral.elf.sandbox import MEMORY_BYTES
from fuzz import campaign, cases, through_readers
from fuzz.mutate import Mutant
from fuzz.seeds import Seed, seeds

_SEED = 4
_SLOWEST_S = 5.0
_READER_BYTES = 256 << 20


def test_mutated_images_end_in_answers_and_errors() -> None:
    """Nothing but a CoralError leaves the code that reads files, within the time and memory of a reader."""
    report = campaign.run(seeds(quick=True), seed=_SEED, count=200, jobs=2)
    assert report.defects == []
    assert report.worst_s < _SLOWEST_S, report.worst
    assert report.memory_bytes < MEMORY_BYTES
    answered = {
        operation for operation in ("identify", "list", "plan", "explain") if report.outcomes[f"{operation}: answered"]
    }
    assert answered == {"identify", "list", "plan", "explain"}
    assert report.outcomes["identify: FAILED_PRECONDITION"]


def test_an_agents_parser_survives_mutated_images() -> None:
    """No reader is lost, none is late, none takes more than a part of its memory."""
    report = through_readers.run(seeds(quick=True), seed=_SEED, count=40, limit_s=20)
    assert report.defects == []
    assert report.memory_bytes < _READER_BYTES


def _regression(content: bytes, debug: bytes = b"") -> cases.Tally:
    seed = Seed(name="regression", content=content, functions=("main", "switched"), debug=debug)
    return cases.run(Mutant(seed=seed, content=content, debug=debug, damage=()), random.Random(0))


def test_a_segment_behind_the_end_of_the_file() -> None:
    """The search for Go's table went there."""
    content = bytearray(next(seed.content for seed in seeds(quick=True) if seed.name == "c, stripped"))
    programs = int.from_bytes(content[56:58], "little")
    first_load = next(64 + 56 * index for index in range(programs) if content[64 + 56 * index] == 1)
    for offset in (len(content), 1 << 63, (1 << 64) - 1):
        damaged = bytearray(content)
        damaged[first_load + 8 : first_load + 16] = offset.to_bytes(8, "little")
        tally = _regression(bytes(damaged))
        assert tally.outcomes["identify: answered"] == 1


def test_a_segment_behind_the_end_of_all_addresses() -> None:
    """No process has it, so the file has none there either."""
    content = bytearray(next(seed.content for seed in seeds(quick=True) if seed.name == "c"))
    programs = int.from_bytes(content[56:58], "little")
    for index in range(programs):
        at = 64 + 56 * index
        if content[at] == 1:
            content[at + 16 : at + 24] = ((1 << 64) - 8).to_bytes(8, "little")
    tally = _regression(bytes(content))
    assert tally.outcomes["identify: answered"] == 1
    assert tally.outcomes["plan: FAILED_PRECONDITION"] == 2  # main and switched are there by name, their code is not


def test_a_debug_link_that_is_no_text() -> None:
    """Its bytes went to the agent, which takes no half of a surrogate pair for text."""
    linked = next(seed.content for seed in seeds(quick=True) if seed.debug)
    intact, damaged = b"image.debug\0", b"\xff\xed\xa0.debug\0\0\0"
    assert linked.count(intact) == 1
    (image,) = cases.files(Mutant(seed=seeds(quick=True)[0], content=linked.replace(intact, damaged), debug=b"", damage=()))
    assert ElfFile(image.fd, "image").info.debug_link == ""
    os.close(image.fd)
