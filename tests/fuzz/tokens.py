"""What proves who somebody is: nothing but the thing itself counts, and nothing else than a refusal comes of the rest."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import random
import time
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from coral.model.errors import CoralError, PermissionDenied, Unauthenticated
from coral.trust.authority import Authority
from coral.trust.commands import Signer, Target, Verifier, new_command_key, public_pem
from coral.trust.invitation import invitation_text, parse_invitation
from coral.trust.oidc import Rules, verify
from coral.trust.tokens import TokenKind, new_token, parse_token
from fuzz.hostile_text import any_text, damaged

_RULES = Rules(issuer="https://id.example", audience="coral", algorithms=("ES256", "RS256"))
_TARGET = Target(agent_id="web-1", boot_id="01ARZ3NDEKTSV4RRFFQ69G5FAV")
_METHOD = "/coral.mesh.v1.DebugService/StartUprobeCollector"


def case(randomness: random.Random) -> str:
    """One damaged credential of some kind."""
    return randomness.choice((_token, _invitation, _jwt, _made_up_jwt, _command))(randomness)


def _changed(randomness: random.Random, value: str) -> str:
    return (
        damaged(randomness, value.encode()).decode("utf-8", "replace") if randomness.random() < 0.8 else any_text(randomness)
    )


def _token(randomness: random.Random) -> str:
    real = new_token(TokenKind.USER)
    text = _changed(randomness, real.text)
    try:
        parsed = parse_token(text, TokenKind.USER)
    except Unauthenticated as error:
        assert text not in str(error) or len(text) < 16, "an error repeats a token"
        return "token: refused"
    assert parsed.matches(real.digest) == (text == real.text), f"{text!r} counts as {real.text!r}"
    return "token: of the form"


def _invitation(randomness: random.Random) -> str:
    text = _changed(randomness, _real_invitation())
    try:
        parse_invitation(text)
    except CoralError as error:
        assert error.code in ("INVALID_ARGUMENT", "UNAUTHENTICATED"), error
        return "invitation: refused"
    return "invitation: of the form"


def _jwt(randomness: random.Random) -> str:
    real, claims = _real_jwt()
    return _verified(_changed(randomness, real), claims)


def _made_up_jwt(randomness: random.Random) -> str:
    """One of a header and claims that were put together, signed by whatever was at hand."""
    weird: tuple[Any, ...] = (None, True, -1, 0, 1 << 70, 1e308, "", "x", [], {}, [["admin"]], "none", "9" * 5000, {"a": {}})
    header: dict[str, Any] = {"alg": randomness.choice(("none", "None", "HS256", "ES256", "RS256", *weird)), "kid": "one"}
    claims: dict[str, Any] = dict(_real_jwt()[1])
    for target, keys in ((header, ("typ", "kid", "crit", "jku", "jwk", "x5c", "b64")), (claims, (*claims, "nbf", "name"))):
        for key in randomness.sample(keys, randomness.randint(0, 2)):
            target[key] = randomness.choice(weird)
    nested = "[" * 3000 + "]" * 3000
    parts = [_b64(json.dumps(header).encode()), _b64(json.dumps(claims).encode())]
    if randomness.random() < 0.05:
        parts[randomness.randrange(2)] = _b64(nested.encode())
    signature = randomness.choice((b"", b"\0" * 64, _hmac(".".join(parts)), randomness.randbytes(64)))
    return _verified(".".join((*parts, _b64(signature))), None)


def _verified(text: str, claims: Mapping[str, Any] | None) -> str:
    async def find(kid: str) -> Mapping[str, Any] | None:
        return _jwk() if kid == "one" else None

    try:
        found = asyncio.run(verify(text, _RULES, find))
    except Unauthenticated as error:
        assert len(text) < 16 or text not in str(error), "an error repeats a token"
        return "jwt: refused"
    assert claims is not None, f"a made-up token counts: {text}"
    assert (found.subject, found.groups) == (claims["sub"], tuple(claims["groups"])), f"a token says something else: {text}"
    return "jwt: counts"


def _command(randomness: random.Random) -> str:
    signer, public = _commands()
    request = randomness.randbytes(20)
    real = signer.sign(_TARGET, _METHOD, request)
    envelope = damaged(randomness, real) if randomness.random() < 0.9 else randomness.randbytes(randomness.randint(0, 3000))
    try:
        Verifier(public, _TARGET).accept(envelope, _METHOD, request)
    except PermissionDenied:
        return "command: refused"
    assert envelope == real, "a damaged command counts"
    return "command: counts"


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@functools.cache
def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache
def _jwk() -> Mapping[str, Any]:
    return {**jwt.algorithms.ECAlgorithm.to_jwk(_key().public_key(), as_dict=True), "kid": "one", "use": "sig"}


def _hmac(text: str) -> bytes:
    """What somebody signs with who takes the public key for a shared secret."""
    public = _key().public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    import hashlib
    import hmac

    return hmac.new(public, text.encode(), hashlib.sha256).digest()


@functools.cache
def _real_jwt() -> tuple[str, Mapping[str, Any]]:
    now = int(time.time())
    claims = {
        "iss": _RULES.issuer, "aud": _RULES.audience, "sub": "ann", "iat": now, "exp": now + 86_400, "groups": ["sre", "dba"],
    }  # fmt: skip
    return jwt.encode(claims, _key(), algorithm="ES256", headers={"kid": "one"}), claims


@functools.cache
def _real_invitation() -> str:
    return invitation_text(new_token(TokenKind.INVITE), Authority.create("01ARZ3NDEKTSV4RRFFQ69G5FAV").pair.certificate)


@functools.cache
def _commands() -> tuple[Signer, bytes]:
    private, _ = new_command_key()
    return Signer(private), public_pem(private)
