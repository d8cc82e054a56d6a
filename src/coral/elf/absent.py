"""What to say of a function that an image does not have under the name that was asked for."""

from __future__ import annotations

from coral.elf.symbols import SymbolTable
from coral.model.errors import NotFound
from coral.model.text import printable

_MOST_LIBRARIES = 10


def explained(symbols: SymbolTable, text: str, path: str, error: NotFound) -> NotFound:
    """A ``NotFound`` with what else is known: that the function is a library's, and which symbol files were not used.

    Args:
        symbols: Of the image.
        text: The name that was asked for.
        path: Of the image, for messages.
        error: What would be said otherwise.
    """
    message, hints = error.message, [error.hint] if error.hint else []
    imported = symbols.imports.get(text.partition("@")[0])
    if imported is not None:
        # Symbols without versions, as with musl, are looked for in all libraries that are asked for, by name alone.
        named = [imported.library] if imported.library else symbols.needed
        libraries = [printable(library.rpartition("/")[2]) for library in named]
        source = (
            f"one of {', '.join(libraries[:_MOST_LIBRARIES])}" if len(libraries) > 1 else "".join(libraries) or "a library"
        )
        message = f"{path} does not have the function {printable(imported.name)!r}: it is imported from {source}."
        library = libraries[0] if len(libraries) == 1 else "LIBRARY"
        hints.insert(0, f"Name it as {library}!{printable(imported.name)}.")
    return NotFound(message, hint=" ".join([*hints, *_files(symbols)]), details=error.details)


def nameless(symbols: SymbolTable, path: str) -> NotFound:
    """The error for an image that names no functions at all.

    Args:
        symbols: Of the image.
        path: Of the image.
    """
    hints = ["Run a build that keeps its symbols (without strip or -s), or install its debug symbols.", *_files(symbols)]
    return NotFound(f"{path} names no functions: it was stripped.", hint=" ".join(hints))


def _files(symbols: SymbolTable) -> list[str]:
    """Which symbol files were not used, and which is missing."""
    if symbols.wanted and ".gopclntab" not in symbols.sources:
        return [*symbols.notes, f"Static functions are named by its debug file {symbols.wanted}, which was not found."]
    return list(symbols.notes)
