"""Checks images in several processes, and keeps what was found, so that a run that was cut short goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from coral.elf.file import ElfFile
from coral.elf.program import Program
from corpus.check import Outcome, check, functions
from corpus.listing import Listing, listing
from corpus.recipes import BUILD, ROOT

_CHUNK = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image to be checked.

    Attributes:
        name: For people.
        path: The file.
        digest: Of its content.
    """

    name: str
    path: Path
    digest: str

    @classmethod
    def of(cls, name: str, path: Path) -> Image:
        """Reads the file's digest."""
        with path.open("rb") as file:
            return cls(name=name, path=path, digest=hashlib.file_digest(file, "sha256").hexdigest()[:20])


def code_version() -> str:
    """A digest of the code whose verdicts these are: the analysis, and this check."""
    digest = hashlib.sha256()
    folders = (ROOT / "src" / "coral" / "elf", Path(__file__).parent)
    for path in sorted(found for folder in folders for found in folder.rglob("*.py") if found.name != "recipes.py"):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:20]


def results(images: list[Image], *, every: int, processes: int) -> Iterator[tuple[Image, list[Outcome]]]:
    """Each image with the verdicts on all its functions, as they become complete.

    Args:
        images: What to check; each process reads one image after the other.
        every: 1 for all functions, 8 for every eighth.
        processes: How many work at the same time.
    """
    version = code_version()
    # Not forked: where gRPC's threads run, as in a run of all tests, a forked process may never get going.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        counts = {image.name: pool.submit(_count, image) for image in images}
        waiting: dict[str, int] = {}
        parts: dict[Future[list[Outcome]], Image] = {}
        found: dict[str, dict[int, list[Outcome]]] = {}
        first: dict[Future[list[Outcome]], int] = {}
        for image in images:
            starts = range(0, counts[image.name].result() or 1, _CHUNK * every)
            waiting[image.name] = len(starts)
            for start in starts:
                part = pool.submit(_part, image, start, every, version)
                parts[part], first[part] = image, start
        for part in as_completed(parts):
            image = parts[part]
            found.setdefault(image.name, {})[first[part]] = part.result()
            waiting[image.name] -= 1
            if not waiting[image.name]:
                chunks = found.pop(image.name)
                yield image, [outcome for start in sorted(chunks) for outcome in chunks[start]]


def _count(image: Image) -> int:
    """How many functions there are; takes objdump's listing on the way, so that the parts find it."""
    kept = _listing_path(image)
    if not kept.exists():
        listing(image.path, kept)
    return len(functions(_opened(image.path)[0]))


def _part(image: Image, start: int, every: int, version: str) -> list[Outcome]:
    kept = BUILD / "results" / version / image.digest / f"{start}-{every}.json"
    if kept.exists():
        return [Outcome(**{**row, "faults": tuple(row["faults"])}) for row in json.loads(kept.read_text())]
    program, listed = _opened(image.path)[0], _listed(_listing_path(image))
    found = list(check(program, listed, functions(program)[start : start + _CHUNK * every : every]))
    kept.parent.mkdir(parents=True, exist_ok=True)
    half = kept.with_suffix(".half")
    half.write_text(json.dumps([asdict(outcome) for outcome in found]))
    half.replace(kept)
    return found


def _listing_path(image: Image) -> Path:
    return BUILD / "listings" / f"{image.digest}.npz"


@lru_cache(2)
def _listed(kept: Path) -> Listing:
    return listing(Path("/nowhere"), kept)


@lru_cache(2)
def _opened(path: Path) -> tuple[Program]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return (Program(ElfFile(fd, str(path))),)
    finally:
        os.close(fd)
