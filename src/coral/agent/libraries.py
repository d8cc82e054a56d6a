"""Which of the libraries that a process has loaded is meant, where several have a function of the name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Generic, TypeVar

from coral.model.errors import AmbiguousName
from coral.model.text import printable

_T = TypeVar("_T")
_LOADER = re.compile(r"ld-linux|ld-\d|ld\.so\.")
"""glibc's: it has functions of its own that are called like those of libc. musl's is its libc."""
_LIMIT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Generic[_T]):
    """A library that has a function of the name.

    Attributes:
        path: Of the library, as the process sees it.
        exported: Whether other files can call the function by its name, or that is not known.
        deleted: Whether the file has been unlinked or replaced since it was loaded.
        what: What was found there.
    """

    path: str
    exported: bool
    deleted: bool
    what: _T


def is_called(path: str, library: str) -> bool:
    """Whether a library that is loaded from ``path`` answers to a name: its base name, or any longer part of its path."""
    return path == library or path.endswith("/" + library.lstrip("/"))


def the_one(found: Sequence[Found[_T]], name: str, where: str) -> Found[_T]:
    """The library that is meant.

    A function that is exported comes before those that only their own library can call, one of the dynamic loader after all
    others, and one in a file that has been replaced after that in its successor.

    Args:
        found: The libraries that have it, at least one.
        name: Of the function, as it was typed, without a library.
        where: The program and its process, for messages.

    Raises:
        AmbiguousName: Several are as good.
    """
    rest = [each for each in found if not _LOADER.match(PurePath(each.path).name)] or list(found)
    rest = [each for each in rest if each.exported] or rest
    rest = [each for each in rest if not each.deleted] or rest
    paths = sorted({each.path for each in rest})
    if len(paths) == 1:
        return rest[0]
    bases = [PurePath(path).name for path in paths]
    labels = [f"{base if bases.count(base) == 1 else path}!{name}" for base, path in zip(bases, paths, strict=True)]
    shown = [printable(label) for label in labels[:_LIMIT]]
    raise AmbiguousName(
        f"{printable(name)!r} means functions of {len(paths)} libraries of {where}.",
        hint=f"Choose one: {', '.join(shown)}{', ...' if len(labels) > _LIMIT else ''}.",
        details={"candidates": "\n".join(shown)},
    )
