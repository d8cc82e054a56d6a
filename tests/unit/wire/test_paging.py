"""Page tokens are read back as they were made, for their query alone, and nobody else makes one."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from coral.model.errors import InvalidArgument
from coral.wire import paging

_QUERY = {"session": "s", "start": 0}
_STATE = {"upto": {"c": 7}, "after": [1, "c", 7]}


def test_a_token_is_read_back_for_its_query_alone() -> None:
    """What went in comes out; with another query it is none."""
    token = paging.make_token(_QUERY, _STATE)
    assert paging.read_token(token, _QUERY) == _STATE
    with pytest.raises(InvalidArgument, match="does not belong to this query"):
        paging.read_token(token, {**_QUERY, "session": "other"})


def test_nobody_else_makes_one() -> None:
    """Not from what a token looks like and how it is computed, nor by changing one, nor with a key of another process."""
    body = json.dumps({"upto": {"x": 1 << 70}}, separators=(",", ":")).encode()
    text = json.dumps(_QUERY, separators=(",", ":"), sort_keys=True).encode()
    forged = base64.urlsafe_b64encode(hashlib.sha256(text + b"\0" + body).digest()[:12] + body).decode().rstrip("=")
    token = paging.make_token(_QUERY, _STATE)
    changed = [token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :] for at in range(len(token) - 1)]
    for candidate in (forged, *changed, token * 2, "", "\u202e", "=" * 9):
        with pytest.raises(InvalidArgument):
            paging.read_token(candidate, _QUERY)
