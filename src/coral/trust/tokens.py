"""Bearer tokens: how they look, how they are made, and what is kept of them, which is never the token.

A token is ``coral_KIND_ID_SECRET`` in lower-case base32 (RFC 4648, section 6, without padding): one word to a terminal's
double click, and a fixed prefix for scanners that look for secrets where there should be none. The secret has 256 random
bits, so a plain SHA-256 at rest is enough: there is nothing to guess that a slow hash would slow down.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum

from coral.model.errors import Unauthenticated

_ID_BYTES = 10
_SECRET_BYTES = 32
_FORM = re.compile(r"coral_([a-z]{1,16})_([a-z2-7]{16})_([a-z2-7]{52})")


class TokenKind(StrEnum):
    """What a token is good for."""

    USER = "user"
    INVITE = "invite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token as its holder has it. It does not show its secret unless asked for ``text``.

    Attributes:
        kind: What it is good for.
        token_id: Names it; no secret.
        secret: Proves it.
    """

    kind: TokenKind
    token_id: str
    secret: str = field(repr=False)

    @property
    def text(self) -> str:
        """As it is given to its holder."""
        return f"coral_{self.kind}_{self.token_id}_{self.secret}"

    @property
    def digest(self) -> bytes:
        """What is kept of it: the SHA-256 of its text."""
        return hashlib.sha256(self.text.encode()).digest()

    def matches(self, digest: bytes) -> bool:
        """Whether it is the token of which ``digest`` was kept; takes the same time whichever byte differs."""
        return hmac.compare_digest(self.digest, digest)


def new_token(kind: TokenKind) -> Token:
    """A new token of a kind, from the system's randomness."""
    return Token(kind=kind, token_id=_text(secrets.token_bytes(_ID_BYTES)), secret=_text(secrets.token_bytes(_SECRET_BYTES)))


def parse_token(text: str, kind: TokenKind) -> Token:
    """A token from its text.

    Args:
        text: What somebody gave as one.
        kind: Which kind it has to be.

    Raises:
        Unauthenticated: It is none, or of another kind. The message does not repeat it.
    """
    found = _FORM.fullmatch(text) if len(text) <= 128 else None
    if found is None:
        raise Unauthenticated("That is no Coral token.", hint="A token looks like coral_user_..., and was printed once.")
    if found[1] != kind:
        raise Unauthenticated(
            f"A token of another kind was given: coral_{found[1]}_..., where coral_{kind}_... is asked for.",
            hint="Users' tokens come from `coral token create`, those of agents from `coral agent invite`.",
        )
    return Token(kind=kind, token_id=found[2], secret=found[3])


def _text(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()
