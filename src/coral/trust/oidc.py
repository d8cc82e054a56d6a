"""JSON Web Tokens of an identity provider (OpenID Connect): whether one counts, and what it says.

What is accepted is fixed here and by the settings, never by the token (RFC 8725): asymmetric algorithms out of a list, keys
of the provider alone, for one issuer and one audience, with an end, a beginning and a subject.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from coral.model.errors import Unauthenticated

ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
LEEWAY_S = 30
MAX_TOKEN_BYTES = 8192
_MAX_KID = 256
_MAX_GROUPS = 1000
_MAX_NAME = 256
_TYPES = (None, "JWT", "jwt", "at+jwt", "application/at+jwt")
"""Of the header's ``typ``: a JWT that was made for something else says so there (RFC 8725, section 3.11)."""
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519"}
MAX_LIFE_S = 7 * 86_400
"""For so long at most a revocation has to be remembered; a token that counts for longer does not count at all."""
_ANOTHER = "Get a new one from the identity provider, and keep it with `coral login`."

KeyFinder = Callable[[str], Awaitable[Mapping[str, Any] | None]]
"""The key of a name, as a JWK (RFC 7517); None if the provider has none of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a token has to be.

    Attributes:
        issuer: Who issued it, exactly.
        audience: For whom.
        algorithms: By which it may be signed.
        name_claim: Where the user's name stands.
        groups_claim: Where the user's groups stand.
    """

    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    name_claim: str = "sub"
    groups_claim: str = "groups"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a token says that counts.

    Attributes:
        subject: Whom the provider means; never given to somebody else.
        name: What it calls them.
        groups: Which groups they are in.
        issued_at_ns: When that was said.
        expires_at_ns: When that ends.
        key_id: The name of the key that signed it.
    """

    subject: str
    name: str
    groups: tuple[str, ...]
    issued_at_ns: int
    expires_at_ns: int
    key_id: str


async def verify(text: str, rules: Rules, find_key: KeyFinder) -> Claims:
    """The claims of a token that counts.

    Args:
        text: The token.
        rules: What it has to be.
        find_key: The provider's keys.

    Raises:
        Unauthenticated: It does not count; the message says why and does not repeat it.
        Unavailable: The provider's keys cannot be had.
    """
    algorithm, key_id = _header(text, rules)
    found = await find_key(key_id)
    if found is None:
        raise _refused("it is signed by a key that the identity provider does not have")
    key = _key(found, algorithm)
    try:
        claims = jwt.decode(
            text,
            key,
            algorithms=[algorithm],
            audience=rules.audience,
            issuer=rules.issuer,
            leeway=LEEWAY_S,
            options={"require": ["exp", "iat", "sub", "iss", "aud"], "enforce_minimum_key_length": True},
        )
    except jwt.ExpiredSignatureError:
        raise Unauthenticated("The token of the identity provider has expired.", hint=_ANOTHER) from None
    except jwt.InvalidAudienceError:
        raise _refused("it was issued for another audience") from None
    except jwt.InvalidIssuerError:
        raise _refused("it has another issuer") from None
    except jwt.MissingRequiredClaimError as error:
        raise _refused(f"it has no {error.claim}") from None
    except jwt.ImmatureSignatureError:
        raise _refused("it does not count yet; is the clock of this host right?") from None
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
        raise _refused("its signature or its form is wrong") from None
    return _claims(claims, rules, key_id)


def _header(text: str, rules: Rules) -> tuple[str, str]:
    """Algorithm and key name that a token claims: whether they are possible at all."""
    if len(text) > MAX_TOKEN_BYTES:
        raise _refused("it is too large")
    try:
        header = jwt.get_unverified_header(text)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise _refused("it is no JSON Web Token") from None
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm not in rules.algorithms or algorithm not in ASYMMETRIC:
        raise _refused(f"it is not signed by one of {', '.join(rules.algorithms)}")
    if header.get("typ") not in _TYPES:
        raise _refused("it was made for something else")
    if "crit" in header:
        raise _refused("it demands extensions that are not known here")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= _MAX_KID:
        raise _refused("it does not name its key")
    return str(algorithm), key_id


def _key(found: Mapping[str, Any], algorithm: str) -> jwt.PyJWK:
    """The key for an algorithm: what it is for, the provider says, not the token."""
    if found.get("use") not in (None, "sig") or found.get("alg") not in (None, algorithm):
        raise _refused("its key is not for that")
    kind = {"R": "RSA", "P": "RSA"}.get(algorithm[0], "OKP" if algorithm == "EdDSA" else "EC")
    if found.get("kty") != kind or found.get("crv") != _CURVES.get(algorithm):
        raise _refused("its algorithm does not fit its key")
    try:
        return jwt.PyJWK({**found, "alg": algorithm}, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        raise _refused("its key cannot be read") from None


def _claims(claims: Mapping[str, Any], rules: Rules, key_id: str) -> Claims:
    subject, name, groups = claims["sub"], claims.get(rules.name_claim), claims.get(rules.groups_claim, [])
    for value, claim in ((subject, "sub"), (name, rules.name_claim)):
        if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME or not value.isprintable():
            raise _refused(f"its {claim} is no name")
    if rules.name_claim == "email" and claims.get("email_verified", True) is not True:
        raise _refused("its email is not verified")
    if int(claims["exp"]) - int(claims["iat"]) > MAX_LIFE_S:
        raise _refused(f"it counts for longer than {MAX_LIFE_S // 86_400} days")
    if isinstance(groups, str):
        groups = [groups]
    if not isinstance(groups, list) or len(groups) > _MAX_GROUPS:
        raise _refused(f"its {rules.groups_claim} is no list of groups")
    return Claims(
        subject=subject,
        name=str(name),
        groups=tuple(group for group in groups if isinstance(group, str) and group.isprintable()),
        issued_at_ns=int(claims["iat"]) * 1_000_000_000,
        expires_at_ns=int(claims["exp"]) * 1_000_000_000,
        key_id=key_id,
    )


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated(f"The token of the identity provider does not count: {why}.", hint=_ANOTHER)
