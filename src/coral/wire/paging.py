"""Page tokens: opaque, bound to the query that they continue and to the life of the server that made them."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
from collections.abc import Mapping
from typing import Any

from coral.model.errors import InvalidArgument

DEFAULT_PAGE = 1_000
MAX_PAGE = 10_000
_DIGEST_BYTES = 12
_KEY = secrets.token_bytes(32)
"""Of this process: only it makes tokens that it reads, so that what is in one need not be checked again."""


def page_size(asked: int, *, field: str, default: int = DEFAULT_PAGE, maximum: int = MAX_PAGE) -> int:
    """How many items a page has.

    Args:
        asked: What the caller wants; 0 for the default.
        field: Its name, for the message.
        default: What 0 stands for.
        maximum: The most that may be asked for.

    Raises:
        InvalidArgument: It is negative, or too large.
    """
    if not 0 <= asked <= maximum:
        raise InvalidArgument(
            f"{field} is {asked:,}.", hint=f"Give 1 to {maximum:,}, or 0 for {default:,}, and ask for further pages."
        )
    return asked or default


def make_token(query: Mapping[str, object], state: Mapping[str, object]) -> str:
    """A token that continues ``query`` from ``state``."""
    body = json.dumps(state, separators=(",", ":"), sort_keys=True).encode()
    return base64.urlsafe_b64encode(_digest(query, body) + body).decode().rstrip("=")


def read_token(token: str, query: Mapping[str, object]) -> dict[str, Any]:
    """The state in a token.

    Raises:
        InvalidArgument: It is no token, was changed, or belongs to another query.
    """
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        digest, body = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
        if hmac.compare_digest(digest, _digest(query, body)):
            state: dict[str, Any] = json.loads(body)
            return state
    except (binascii.Error, ValueError):
        pass
    raise InvalidArgument(
        "The page_token does not belong to this query.",
        hint="Repeat the query exactly as it was with the token that its last page gave, or leave the token out.",
    )


def _digest(query: Mapping[str, object], body: bytes) -> bytes:
    text = json.dumps(query, separators=(",", ":"), sort_keys=True).encode()
    return hmac.digest(_KEY, text + b"\0" + body, "sha256")[:_DIGEST_BYTES]
