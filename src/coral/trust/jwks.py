"""The public keys of an identity provider (RFC 7517), fetched when they are needed and kept for a while.

They come over https, or over http from this host; a redirect is not followed. An unknown key makes them be fetched anew, so a
provider may change its keys at any time, but no oftener than every few seconds, so that callers who make names up cannot have
the provider flooded. When it cannot be reached, keys that are not too old count on.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from coral.model.errors import InvalidArgument, Unavailable

MAX_BYTES = 256 << 10
MAX_KEYS = 64
FETCH_S = 5.0
_FRESH_S = 600.0
_STALE_S = 3600.0
_EVERY_S = 5.0
_CHUNK_BYTES = 16 << 10
_DISCOVERY = "/.well-known/openid-configuration"

Fetch = Callable[[str], bytes]
"""The body at an address, within ``FETCH_S`` and ``MAX_BYTES``; raises Unavailable. Runs in a thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Keys:
    by_name: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fetched_at: float = float("-inf")


class KeySource:
    """Keys by name."""

    def __init__(
        self,
        *,
        issuer: str,
        keys_url: str = "",
        fetch: Fetch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Fetches nothing yet.

        Args:
            issuer: The identity provider.
            keys_url: Where its keys are; empty for what its discovery document says (OpenID Connect Discovery 1.0, 4).
            fetch: How to get a body; None for http.
            clock: In seconds.

        Raises:
            InvalidArgument: An address is neither https nor on this host.
        """
        check_url(keys_url or issuer)
        self._issuer = issuer
        self._keys_url = keys_url
        self._fetch = fetch or fetch_url
        self._clock = clock
        self._keys = _Keys()
        self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._error: Unavailable | None = None

    async def find(self, key_id: str) -> Mapping[str, Any] | None:
        """The key of a name; None if the provider has none.

        Raises:
            Unavailable: Its keys cannot be had, and those that were had are too old.
        """
        found = self._keys.by_name.get(key_id)
        age_s = self._clock() - self._keys.fetched_at
        if found is not None and age_s < _FRESH_S:
            return found
        if self._fetching is not None or self._clock() - self._tried_at >= _EVERY_S:
            await self._refreshed()
        if self._clock() - self._keys.fetched_at < _STALE_S:
            return self._keys.by_name.get(key_id)
        raise self._error or Unavailable("The identity provider's keys are not known yet.", hint="Try again in some seconds.")

    async def _refreshed(self) -> None:
        """Waits for the one fetch that is under way, or for a new one."""
        if self._fetching is None:
            self._tried_at = self._clock()
            self._fetching = asyncio.create_task(self._refresh())
            self._fetching.add_done_callback(self._done)
        # Shielded: whoever goes away does not end it for the others.
        await asyncio.shield(self._fetching)

    def _done(self, _task: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(2 * FETCH_S):
                body = await asyncio.to_thread(self._download)
        except TimeoutError:
            self._error = Unavailable("The identity provider did not give its keys in time.", hint="Is it well?")
        except Unavailable as error:
            self._error = error
        else:
            self._keys = _Keys(by_name=body, fetched_at=self._clock())
            self._error = None

    def _download(self) -> dict[str, Mapping[str, Any]]:
        """The keys as they are now; in a thread."""
        url = self._keys_url
        if not url:
            document = _json(self._fetch(self._issuer.rstrip("/") + _DISCOVERY), "discovery document")
            if document.get("issuer") != self._issuer:
                raise Unavailable(
                    "The discovery document of the identity provider is of another issuer.",
                    hint="Check the setting oidc.issuer.",
                )
            url = document.get("jwks_uri", "")
            try:
                check_url(url)
            except InvalidArgument as error:
                raise Unavailable(f"The identity provider's keys cannot be had: {error}") from None
        keys = _json(self._fetch(url), "keys").get("keys")
        if not isinstance(keys, list):
            raise Unavailable(
                "The identity provider's keys are no JSON Web Key Set.", hint="Check the setting oidc.keys_url."
            )
        return {key["kid"]: key for key in keys[:MAX_KEYS] if isinstance(key, dict) and isinstance(key.get("kid"), str)}


def check_url(url: object) -> str:
    """Returns ``url`` if keys may be had from there: nobody on the way can change them.

    Raises:
        InvalidArgument: It is neither https nor http on this host.
    """
    if isinstance(url, str) and url.isprintable():
        try:
            parts = urlsplit(url)
            host = parts.hostname
        except ValueError:
            host = None
        else:
            if (
                host
                and parts.username is None
                and (parts.scheme == "https" or (parts.scheme == "http" and host in ("127.0.0.1", "::1", "localhost")))
            ):
                return url
    raise InvalidArgument("Its address is neither https nor on this host.", hint="Give https://HOST/...")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        """An address that was checked must not lead to one that was not."""
        return


def fetch_url(url: str) -> bytes:
    """The body at an address.

    Raises:
        Unavailable: It cannot be had, is too large, or took too long.
    """
    # A proxy for what is on this host would be asked for what is on its own.
    handlers = [_NoRedirects()] if url.startswith("https:") else [_NoRedirects(), urllib.request.ProxyHandler({})]
    deadline = time.monotonic() + FETCH_S
    body = b""
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=FETCH_S) as response:
            while chunk := response.read1(_CHUNK_BYTES):
                body += chunk
                if len(body) > MAX_BYTES:
                    raise Unavailable(f"{url} gives more than {MAX_BYTES:,} bytes.", hint="Is it the right address?")
                if time.monotonic() > deadline:
                    raise Unavailable(f"{url} does not end.", hint="Is it the right address?")
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise Unavailable(f"{url} cannot be had: {reason}.", hint="Can the colony reach the identity provider?") from None
    return body


def _json(body: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Unavailable(f"The identity provider's {what} is no JSON object.", hint="Check the settings below oidc.")
    return document
