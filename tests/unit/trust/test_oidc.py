"""Tokens of an identity provider: which count, and where the keys that decide it come from. Real keys, real HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.identity_provider import AUDIENCE, IdentityProvider, encoded, identity_provider

from coral.colony.access.jwts import ProviderUsers
from coral.model.errors import InvalidArgument, Unauthenticated, Unavailable
from coral.model.principal import Kind, Principal, Role
from coral.trust.authority import Authority, new_key, private_pem
from coral.trust.jwks import KeySource, check_url, fetch_url
from coral.trust.oidc import ASYMMETRIC, Claims, Rules, verify


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    """One provider with a key of each kind."""
    with identity_provider() as made:
        made.keys |= {
            "ec": ec.generate_private_key(ec.SECP256R1()),
            "ec384": ec.generate_private_key(ec.SECP384R1()),
            "ed": ed25519.Ed25519PrivateKey.generate(),
            "weak": rsa.generate_private_key(65537, 1024),
        }
        made.extra_keys = [
            {"kid": "secret", "kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"},
            {"kid": "broken", "kty": "RSA", "n": "!", "e": "AQAB"},
            {**made.key_set()["keys"][0], "kid": "encryption", "use": "enc"},
            {"kid": 7, "kty": "RSA"},
        ]
        made.keys["encryption"] = made.keys["k1"]
        yield made


def rules(provider: IdentityProvider, **changed: Any) -> Rules:
    """Those that the provider's tokens meet."""
    return Rules(issuer=provider.url, audience=AUDIENCE, algorithms=ASYMMETRIC, **changed)


def check(provider: IdentityProvider, text: str, **changed: Any) -> Claims:
    """The claims of a token."""

    async def find(key_id: str) -> Any:
        keys = {key["kid"]: key for key in provider.key_set()["keys"]}
        keys["encryption"] = {**keys["encryption"], "use": "enc"}
        return keys.get(key_id)

    return asyncio.run(verify(text, rules(provider, **changed), find))


@pytest.mark.parametrize(
    ("algorithm", "key"), [("RS256", "k1"), ("PS512", "k1"), ("ES256", "ec"), ("ES384", "ec384"), ("EdDSA", "ed")]
)
def test_a_token_that_counts(provider: IdentityProvider, algorithm: str, key: str) -> None:
    """Whatever asymmetric key signed it, subject, name, groups and end come from it."""
    claims = check(provider, provider.token(algorithm=algorithm, key=key, groups=["sre", 7, "a\x1b"]))
    assert (claims.subject, claims.name, claims.groups, claims.key_id) == ("u-1", "u-1", ("sre",), key)
    assert 0 < claims.expires_at_ns - time.time_ns() <= 600 * 1_000_000_000


REFUSED: list[tuple[str, Callable[[IdentityProvider], str], str]] = [
    ("garbage", lambda p: "garbage", "no JSON Web Token"),
    ("empty", lambda p: "", "no JSON Web Token"),
    ("too large", lambda p: p.token(more="x" * 9000), "too large"),
    ("alg none", lambda p: p.unsigned(), "not signed by one of"),
    ("HS256 with the public key", lambda p: p.confused(), "not signed by one of"),
    ("no kid", lambda p: p.token(header={"kid": ""}), "does not name its key"),
    ("unknown kid", lambda p: p.token(header={"kid": "other"}), "key that the identity provider does not have"),
    ("another's key", lambda p: p.token(header={"kid": "k1"}, key="weak"), "signature or its form"),
    ("kid of another kind", lambda p: p.token(header={"kid": "ec"}), "does not fit its key"),
    ("curve of another", lambda p: p.token(algorithm="ES384", key="ec384", header={"kid": "ec"}), "does not fit its key"),
    ("shared secret in the set", lambda p: p.token(header={"kid": "secret"}), "does not fit its key"),
    ("key that is none", lambda p: p.token(header={"kid": "broken"}), "cannot be read"),
    ("key for encryption", lambda p: p.token(key="encryption"), "not for that"),
    ("weak key", lambda p: p.token(key="weak"), "signature or its form"),
    ("typ of something else", lambda p: p.token(header={"typ": "logout+jwt"}), "made for something else"),
    ("crit", lambda p: p.token(header={"crit": ["x"], "x": 1}), "no JSON Web Token"),
    ("crit that is known", lambda p: p.headed(crit=["b64"], b64=True), "extensions"),
    ("expired", lambda p: p.token(exp=int(time.time()) - 31), "has expired"),
    ("not yet", lambda p: p.token(nbf=int(time.time()) + 120), "does not count yet"),
    ("issued in the future", lambda p: p.token(iat=int(time.time()) + 120), "does not count yet"),
    ("no exp", lambda p: p.token(exp=None), "no exp"),
    ("no iat", lambda p: p.token(iat=None), "no iat"),
    ("no sub", lambda p: p.token(sub=None), "no sub"),
    ("no aud", lambda p: p.token(aud=None), "no aud"),
    ("no iss", lambda p: p.token(iss=None), "no iss"),
    ("for ever", lambda p: p.token(exp=int(time.time()) + 30 * 86_400), "longer than 7 days"),
    ("exp of no number", lambda p: p.token(exp=10**400), "signature or its form|longer than"),
    ("other audience", lambda p: p.token(aud="grafana"), "another audience"),
    ("other audiences", lambda p: p.token(aud=["grafana", "coral2"]), "another audience"),
    ("other issuer", lambda p: p.token(iss="https://evil.example.com"), "another issuer"),
    ("issuer with a slash", lambda p: p.token(iss=p.url + "/"), "another issuer"),
    ("sub of no text", lambda p: p.token(sub=""), "no name|no sub"),
    ("sub with escapes", lambda p: p.token(sub="a\x1b[2J"), "sub is no name"),
    ("groups of no list", lambda p: p.token(groups={"sre": 1}), "no list of groups"),
    ("tampered", lambda p: p.tampered(sub="admin"), "signature or its form"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits long")
@pytest.mark.parametrize(("make", "why"), [pytest.param(make, why, id=name) for name, make, why in REFUSED])
def test_a_token_that_does_not_count(provider: IdentityProvider, make: Callable[[IdentityProvider], str], why: str) -> None:
    """Each is refused with its reason, as UNAUTHENTICATED, without being repeated."""
    text = make(provider)
    with pytest.raises(Unauthenticated, match=why) as caught:
        check(provider, text)
    assert len(text) < 20 or text not in str(caught.value)


def test_leeway_and_audiences(provider: IdentityProvider) -> None:
    """Clocks may differ by half a minute, a token may be for others too, and an unverified email is no name."""
    now = int(time.time())
    check(provider, provider.token(exp=now - 25))
    check(provider, provider.token(aud=["grafana", AUDIENCE], iat=now + 25))
    assert check(provider, provider.token(email="ann@example.com"), name_claim="email").name == "ann@example.com"
    with pytest.raises(Unauthenticated, match="not verified"):
        check(provider, provider.token(email="ann@example.com", email_verified=False), name_claim="email")
    with pytest.raises(Unauthenticated, match="email is no name"):
        check(provider, provider.token(), name_claim="email")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku"]),
        st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda x: st.lists(x, max_size=3)),
        max_size=5,
    )
)
def test_no_header_breaks_it(provider: IdentityProvider, header: dict[str, Any]) -> None:
    """Whatever a header holds, the token is refused; nothing in it is fetched or believed."""
    with pytest.raises(Unauthenticated):
        check(provider, encoded(header, provider.claims()) + ".AAAA")


def test_groups_become_roles(provider: IdentityProvider) -> None:
    """A user has the roles of all their groups, and none of groups that are not mapped; the name says where it is from."""

    async def scenario() -> tuple[Principal, Principal]:
        users = ProviderUsers(
            rules=rules(provider, name_claim="email"),
            keys=KeySource(issuer=provider.url),
            roles={"sre": Role.OPERATOR, "staff": Role.VIEWER, "root": Role.ADMIN},
        )
        token = provider.token(email="ann@example.com", groups=["sre", "staff", "chess"])
        none = provider.token(email="ann@example.com", groups=["chess"])
        return await users.identify(token, "10.0.0.1:5"), await users.identify(none, "10.0.0.1:5")

    ann, nobody = asyncio.run(scenario())
    assert (ann.name, ann.kind, ann.roles, ann.credential_id) == (
        "oidc:ann@example.com", Kind.USER, (Role.VIEWER, Role.OPERATOR), "oidc:u-1",
    )  # fmt: skip
    assert nobody.roles == ()


class Clock:
    """A clock that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_keys_are_fetched_once_and_anew_for_a_new_name() -> None:
    """Many ask at once: one fetch. A key that was changed is found at once; names that nobody has do not flood."""

    async def scenario() -> None:
        with identity_provider() as provider:
            clock = Clock()
            source = KeySource(issuer=provider.url, clock=clock)
            found = await asyncio.gather(*(source.find("k1") for _ in range(20)))
            assert all(key == found[0] is not None for key in found)
            assert provider.requests == ["/.well-known/openid-configuration", "/keys"]
            for _ in range(20):
                assert await source.find("made up") is None
            assert len(provider.requests) == 2
            provider.keys = {"k2": ec.generate_private_key(ec.SECP256R1())}
            clock.now += 5
            assert await source.find("k2") is not None
            assert await source.find("k1") is None
            assert len(provider.requests) == 4

    asyncio.run(scenario())


def test_keys_outlive_their_provider_for_a_while() -> None:
    """A provider that is away is asked again every few seconds; known keys count for an hour, then nothing does."""

    async def scenario() -> None:
        with identity_provider() as provider:
            clock = Clock()
            source = KeySource(issuer=provider.url, keys_url=f"{provider.url}/keys", clock=clock)
            assert await source.find("k1") is not None
            provider.answer = (503, b"")
            for _ in range(3):
                clock.now += 1190
                assert await source.find("k1") is not None
            assert provider.requests == ["/keys"] * 4
            clock.now += 100
            with pytest.raises(Unavailable, match=r"/keys cannot be had: .*Service Unavailable"):
                await source.find("k1")
            provider.answer = None
            clock.now += 5
            assert await source.find("k1") is not None

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((200, b"x" * 300_000), "more than 262,144 bytes"),
        ((200, b"not json"), "no JSON object"),
        ((200, b"[" * 100_000), "no JSON object"),
        ((200, b'{"keys": {}}'), "no JSON Web Key Set"),
        ((302, b""), "cannot be had"),
    ],
)
def test_what_is_no_key_set(provider: IdentityProvider, answer: tuple[int, bytes], why: str) -> None:
    """A provider that answers with something else is reported as unavailable, with the reason; a redirect is not followed."""
    provider.answer = answer
    try:
        with pytest.raises(Unavailable, match=why):
            asyncio.run(KeySource(issuer=provider.url, keys_url=f"{provider.url}/keys").find("k1"))
    finally:
        provider.answer = None


def test_a_discovery_document_of_somebody_else(provider: IdentityProvider) -> None:
    """It has to name the issuer that was configured, and keys that are to be had safely."""
    for document, why in (
        ('{"issuer": "https://other", "jwks_uri": "https://other/keys"}', "of another issuer"),
        (f'{{"issuer": "{provider.url}", "jwks_uri": "http://other/keys"}}', "neither https nor on this host"),
        (f'{{"issuer": "{provider.url}", "jwks_uri": "file:///etc/passwd"}}', "neither https nor on this host"),
        (f'{{"issuer": "{provider.url}"}}', "neither https nor on this host"),
    ):
        provider.answer = (200, document.encode())
        try:
            with pytest.raises(Unavailable, match=why):
                asyncio.run(KeySource(issuer=provider.url).find("k1"))
        finally:
            provider.answer = None


@pytest.mark.parametrize(
    "url", ["http://id.example.com", "file:///etc/passwd", "ftp://h/x", "", "https://", "https://u:p@h/", "https://[", 7, "http://127.0.0.1.evil.com/"]
)  # fmt: skip
def test_addresses_that_keys_do_not_come_from(url: object) -> None:
    """Only https, or http on this host: nobody on the way can put keys of their own there."""
    with pytest.raises(InvalidArgument, match="neither https nor on this host"):
        check_url(url)


def test_a_provider_has_to_prove_who_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over https its certificate is one of an authority that this host trusts; a private one is named by SSL_CERT_FILE."""
    authority, key = Authority.create("provider"), new_key()
    pair = tmp_path / "pair.pem"
    pair.write_bytes(private_pem(key) + authority.issue_colony(key.public_key(), ["127.0.0.1"], lifetime_s=60))
    (tmp_path / "ca.pem").write_bytes(authority.pair.certificate)
    with identity_provider(pair) as provider:
        with pytest.raises(Unavailable, match="certificate verify failed"):
            fetch_url(f"{provider.url}/keys")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert b'"kid": "k1"' in fetch_url(f"{provider.url}/keys")


def test_a_provider_that_dawdles(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for beyond the deadline, and callers whose keys are known do not wait at all."""

    async def scenario() -> None:
        with identity_provider() as provider:
            clock = Clock()
            source = KeySource(issuer=provider.url, keys_url=f"{provider.url}/keys", clock=clock)
            assert await source.find("k1") is not None
            provider.pause_s = 0.6
            clock.now += 6
            waiting = asyncio.create_task(source.find("made up"))
            await asyncio.sleep(0.05)
            async with asyncio.timeout(0.2):
                assert await source.find("k1") is not None
            assert await waiting is None
            with pytest.raises(Unavailable, match="timed out"):
                await asyncio.to_thread(fetch_url, f"{provider.url}/keys")

    monkeypatch.setattr("coral.trust.jwks.FETCH_S", 0.2)
    asyncio.run(scenario())


def test_a_provider_that_is_not_there() -> None:
    """The reason of the system is said."""
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1/keys cannot be had: .*refused"):
        fetch_url("http://127.0.0.1:1/keys")
