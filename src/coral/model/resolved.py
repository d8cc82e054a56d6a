"""What a name of a function came to in one image: all that its code is called, which rules about functions go by."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedFunction:
    """A function that was found.

    Attributes:
        name: As events call it.
        file: Base name of the image that it is in.
        called: For each function that has a symbol where its code begins, all the ways of writing that. There are several
            where one is an alias of another, or where the linker folded functions whose code is alike.
        complete: Whether ``called`` has all of them.
    """

    name: str
    file: str
    called: tuple[tuple[str, ...], ...]
    complete: bool = True

    @property
    def spellings(self) -> tuple[tuple[str, ...], ...]:
        """``called``, and each of it also as ``FILE!NAME``."""
        return tuple((*ways, *(f"{self.file}!{way}" for way in ways)) for ways in self.called)

    @property
    def mark(self) -> bytes:
        """Stands for exactly this: the SHA-256 over all of it."""
        whole = [self.name, self.file, [list(ways) for ways in self.called], self.complete]
        return hashlib.sha256(json.dumps(whole).encode()).digest()
