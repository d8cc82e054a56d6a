"""Contexts: which colony a person works with, how to know it, and the token to show it. One file, for its owner alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from coral.config.places import contexts_file
from coral.model.errors import FailedPrecondition, InvalidArgument, NotFound
from coral.model.text import printable
from coral.trust.secret_files import read_secret, write_secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One colony, as somebody uses it. The token does not show itself.

    Attributes:
        name: How it is called.
        colony: HOST:PORT.
        ca_pem: The certificate of its authority.
        token: What to show it.
        user: Whose token that is, as the colony said.
    """

    name: str
    colony: str
    ca_pem: str = field(repr=False)
    token: str = field(repr=False)
    user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """All of them.

    Attributes:
        current: The name of the one that counts where none is named; empty for none.
        by_name: In the order in which they were made.
    """

    current: str = ""
    by_name: Mapping[str, Context] = field(default_factory=dict)

    def of_colony(self, address: str) -> Context | None:
        """The context of a colony: the current one if it is its; None if there is none.

        Args:
            address: HOST:PORT, or empty for the current context's colony.
        """
        current = self.by_name.get(self.current)
        if not address or (current is not None and current.colony == address):
            return current
        return next((context for context in self.by_name.values() if context.colony == address), None)

    def with_context(self, context: Context) -> Contexts:
        """These with one more, or another one in the place of that of its name; it is the current one then."""
        return Contexts(current=context.name, by_name={**self.by_name, context.name: context})

    def using(self, name: str) -> Contexts:
        """These with another current one.

        Raises:
            NotFound: There is none of that name.
        """
        if name not in self.by_name:
            known = ", ".join(self.by_name) or "none"
            raise NotFound(f"There is no context {name!r}.", hint=f"There is {known}. `coral login` makes them.")
        return replace(self, current=name)


def load_contexts() -> Contexts:
    """Those that are kept; none if there is no file.

    Raises:
        FailedPrecondition: The file is open to others, or cannot be read.
        InvalidArgument: It is not of its form. The message does not repeat what it holds.
    """
    path = contexts_file()
    try:
        text = read_secret(path)
    except NotFound:
        return Contexts()
    import yaml

    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        document = None
    try:
        return _read(document)
    except (KeyError, TypeError, AttributeError):
        raise InvalidArgument(
            f"{path} is not a file of contexts.", hint="Remove it, and sign in again with `coral login`."
        ) from None


def save_contexts(contexts: Contexts) -> None:
    """Keeps them, with mode 0600, in the place of what was kept before.

    Raises:
        FailedPrecondition: The file cannot be written.
    """
    import yaml

    document = {
        "current": contexts.current,
        "contexts": {
            context.name: {"colony": context.colony, "user": context.user, "token": context.token, "ca": context.ca_pem}
            for context in contexts.by_name.values()
        },
    }
    path = contexts_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_secret(path, yaml.safe_dump(document, sort_keys=False).encode())
    except OSError as error:
        raise FailedPrecondition(
            f"{path} cannot be written: {error.strerror}.", hint="Choose another folder with XDG_CONFIG_HOME."
        ) from None


def _read(document: Any) -> Contexts:
    by_name = {
        str(name): Context(
            name=str(name),
            colony=_text(found["colony"]),
            ca_pem=_text(found["ca"]),
            token=_text(found["token"]),
            user=printable(_text(found.get("user", ""))),
        )
        for name, found in document["contexts"].items()
    }
    return Contexts(current=_text(document["current"]), by_name=by_name)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
