"""Where the JSON Lines copy of the audit log lies: the file that is written, and the full ones before it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from coral.trust.chain import MAX_LINE_BYTES

CURRENT_FILE = "audit.jsonl"
_FULL = re.compile(r"audit-(\d{16})\.jsonl")


def full_name(first: int) -> str:
    """The name of a full file, by the sequence of its first record."""
    return f"audit-{first:016}.jsonl"


def full_files(folder: Path) -> list[tuple[int, Path]]:
    """The full files of a folder with the sequence that each begins with, oldest first."""
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _FULL.fullmatch(path.name))]
    return sorted(found)


def files(path: Path) -> list[Path]:
    """The files that make up a copy, oldest first, when ``path`` is the one that is written; any other stands for itself."""
    if path.name != CURRENT_FILE:
        return [path]
    return [*(full for _, full in full_files(path.parent)), path]


def read_lines(path: Path, *, upto_bytes: int | None = None) -> Iterator[bytes]:
    """The lines of one file without their line breaks. A line that is too long to be a record is cut, and so none.

    Args:
        path: The file.
        upto_bytes: How much of it; None for all.

    Raises:
        OSError: It cannot be read.
    """
    left = upto_bytes
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES + 2):
            if left is not None:
                if len(line) > left:
                    line = line[:left]
                left -= len(line)
            if line:
                yield line.removesuffix(b"\n")
            if left == 0:
                return
